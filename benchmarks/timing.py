"""Timing for all benchmarks: medians of calls that take turns in one run."""

import os
import statistics
import time
from collections.abc import Callable

import torch

# Long compared with the resolution of the clock and with cold-cache effects.
_TURN_SECONDS = 2e-3


def _turn(call: Callable[[], object], repetitions: int) -> float:
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    return (time.perf_counter() - begin) / repetitions


def medians(
    calls: dict[str, Callable[[], object]],
    seconds: float = 1.5,
    before_turn: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    """Returns the median duration of each call in seconds.

    The calls take turns A B C A B C ... for about `seconds` per call. `before_turn(name)` runs untimed before
    each turn.
    """
    repetitions = {}
    for name, call in calls.items():
        before_turn(name)
        call()
        repetitions[name] = max(1, round(_TURN_SECONDS / _turn(call, 2)))
    turns: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while len(turns[name]) < 5 or time.perf_counter() < end:
        for name, call in calls.items():
            before_turn(name)
            turns[name].append(_turn(call, repetitions[name]))
    return {name: statistics.median(durations) for name, durations in turns.items()}


def environment() -> dict[str, object]:
    """The processor, the instruction set and the version of torch."""
    processor = "unknown"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            processor = next(
                (line.split(":")[1].strip() for line in lines if "model name" in line), processor
            )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
