"""Timing for all benchmarks: calls that are compared take turns in one run."""

import os
import statistics
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]

# Long compared with the resolution of the clock and with cold-cache effects.
_TURN_SECONDS = 2e-3
_MIN_ROUNDS = 5


def wall_clock(call: Call, repetitions: int) -> float:
    """Returns the seconds per call, measured on the CPU."""
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    return (time.perf_counter() - begin) / repetitions


def take_turns(
    calls: dict[str, Call],
    seconds: float,
    clock: Callable[[Call, int], float] = wall_clock,
    turn_seconds: float = _TURN_SECONDS,
    before_turn: Callable[[str], object] = lambda name: None,
) -> dict[str, list[float]]:
    """Returns the durations of each call in seconds, one per turn.

    The calls take turns A B C A B C ... for about `seconds` per call, and at least 5 times.
    `before_turn(name)` runs untimed before each turn.
    """
    repetitions = {}
    for name, call in calls.items():
        before_turn(name)
        call()
        repetitions[name] = min(1000, max(1, round(turn_seconds / max(clock(call, 2), 1e-9))))
    turns: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while calls and (rounds < _MIN_ROUNDS or time.perf_counter() < end):
        for name, call in calls.items():
            before_turn(name)
            turns[name].append(clock(call, repetitions[name]))
        rounds += 1
    return turns


def medians(
    calls: dict[str, Call], seconds: float = 1.5, before_turn: Callable[[str], object] = lambda name: None
) -> dict[str, float]:
    """Returns the median duration of each call in seconds; see `take_turns`."""
    turns = take_turns(calls, seconds, before_turn=before_turn)
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
