"""How long calls take on a GPU.

Calls that are compared take turns. Each gets its inputs in rotation from more copies than the GPU's L2 cache
holds, so that they are read from memory, as they are in training. "eager" is a call as Python makes it;
"graph" replays a CUDA graph of one call for each copy, in which nothing waits for Python.
"""

import itertools
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from rows import first_line
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_MIN_ROUNDS = 5
# Of small inputs, which are in the cache anyway where they come from: each is a call in a CUDA graph.
_MAX_COPIES = 512


def kernel_name(signature: str) -> str:
    """`recursion` of `void ns::(anonymous namespace)::recursion<float, 3>(float const*)`."""
    found = re.search(r"(\w+)(?=[<(])", signature.replace("(anonymous namespace)::", ""))
    return found.group(1) if found else signature


class CudaTimer:
    """A GPU's own clock."""

    device = torch.device("cuda", 0)
    turn_seconds = 5e-3

    def turn(self, call: Callable[[], object], repetitions: int) -> float:
        """Seconds a call."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repetitions):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / repetitions

    def captured(self, calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
        """One CUDA graph of all the calls."""
        # What a first call allocates or looks up must not happen during the capture.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                calls[0]()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay

    def kernels(self, call: Callable[[], object], repetitions: int = 20) -> dict[str, float]:
        """Seconds a call in each kernel."""
        call()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(repetitions):
                call()
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for event in profiler.key_averages():
            if event.device_type == DeviceType.CUDA and event.self_device_time_total > 0:
                name = kernel_name(event.key)
                seconds.setdefault(name, 0.0)
                seconds[name] += event.self_device_time_total * 1e-6 / repetitions
        return seconds


class HostTimer:
    """The processor's, for calls that wait for their result."""

    turn_seconds = 5e-3

    def turn(self, call: Callable[[], object], repetitions: int) -> float:
        """Seconds a call."""
        begin = time.perf_counter()
        for _ in range(repetitions):
            call()
        return (time.perf_counter() - begin) / repetitions


class Duration(NamedTuple):
    """Of one call, in seconds: the median of its turns, and their 10th and 90th percentiles."""

    median: float
    low: float
    high: float

    def in_ms(self, kind: str, calls: int = 1) -> dict[str, object]:
        """Fields of a row."""
        median, low, high = (1e3 * seconds / calls for seconds in self)
        return {f"{kind} ms": median, f"{kind} spread ms": [low, high]}


def durations(
    calls: dict[str, Callable[[], object]], clock: CudaTimer | HostTimer, seconds: float
) -> dict[str, Duration]:
    """Of each call, from turns A B C A B C ... over about `seconds` a call."""
    repetitions = {}
    for name, call in calls.items():
        for _ in range(2):
            call()
        once = clock.turn(call, 3)
        repetitions[name] = min(1000, max(1, round(clock.turn_seconds / max(once, 1e-9))))
    turns: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while rounds < _MIN_ROUNDS or time.perf_counter() < end:
        for name, call in calls.items():
            turns[name].append(clock.turn(call, repetitions[name]))
        rounds += 1
    result = {}
    for name, sample in turns.items():
        tenths = statistics.quantiles(sample, n=10, method="inclusive")
        result[name] = Duration(statistics.median(sample), tenths[0], tenths[-1])
    return result


class Contender(NamedTuple):
    """Something to be timed on one input at a time."""

    name: str
    call: Callable[..., object]
    capturable: bool = False

    def over(self, inputs: Sequence[object]) -> Callable[[], object]:
        """Its call on the next input."""
        rotation = itertools.cycle(inputs)
        return lambda: self.call(next(rotation))


class Bench:
    """What all measurements of one run share."""

    def __init__(self, cache_bytes: int, seconds: float, copied: int) -> None:
        """`copied` numbers make up the tensor that the bandwidth is measured on."""
        self.clock = CudaTimer()
        self.device = self.clock.device
        self.cache_bytes = cache_bytes
        self.seconds = seconds
        self.bandwidth = self._copy_bandwidth(copied)

    def copies(self, tensor: Tensor) -> list[Tensor]:
        """The tensor and copies of it: together more than twice what the cache holds, if so many do."""
        count = min(_MAX_COPIES, 2 * self.cache_bytes // tensor.nbytes + 1)
        gradient = tensor.requires_grad
        return [tensor, *(tensor.detach().clone().requires_grad_(gradient) for _ in range(count - 1))]

    def time(self, contenders: Sequence[Contender], inputs: Sequence[object]) -> dict[str, dict[str, object]]:
        """Of each contender: its times, "graph ms" if it can be captured, and a "note" on a failure."""
        results: dict[str, dict[str, object]] = {contender.name: {} for contender in contenders}
        calls, graphs = {}, {}
        for contender in contenders:
            call = contender.over(inputs)
            try:
                self.clock.turn(call, 2)
                calls[contender.name] = call
            except Exception as error:
                results[contender.name]["note"] = first_line(error)
        for name, eager in durations(calls, self.clock, self.seconds).items():
            results[name] |= eager.in_ms("eager")
        # Behind all else: a capture that fails can leave a stream unusable.
        for name, call, capturable in contenders:
            if capturable and name in calls:
                try:
                    graphs[name] = self.clock.captured([partial(call, one) for one in inputs])
                except Exception as error:
                    results[name]["note"] = f"no graph: {first_line(error)}"
        for name, graph in durations(graphs, self.clock, self.seconds).items():
            results[name] |= graph.in_ms("graph", len(inputs))
        return results

    def profile_kernels(self, call: Callable[[], object]) -> dict[str, object]:
        """Fields of a row: the time of a call in each kernel."""
        try:
            kernels = self.clock.kernels(call)
        except Exception as error:
            return {"not profiled": first_line(error)}
        return {"kernels us": {name: 1e6 * seconds for name, seconds in kernels.items()}}

    def _copy_bandwidth(self, count: int) -> float:
        """Bytes a second that a copy within the device reads and writes."""
        source = torch.randn(count, device=self.device)
        copy = torch.empty_like(source)
        duration = durations({"copy": lambda: copy.copy_(source)}, self.clock, self.seconds)["copy"]
        return 2 * source.nbytes / duration.median

    def memory_sweep_ms(self, tensor: Tensor) -> float:
        """How long reading or writing a tensor once takes at that bandwidth: what floors are made of."""
        return 1e3 * tensor.nbytes / self.bandwidth
