"""GPU timing of calls that take turns.

The input of a call rotates through copies that together exceed the L2 cache, so that it is read from memory,
as in training. "eager" is a call from Python; "graph" replays a CUDA graph with one call per copy, without
the overhead of Python.
"""

import itertools
import re
import statistics
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from rows import Row, first_line, new_row, note_errors
from timing import Call, take_turns
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_TURN_SECONDS = 5e-3
# A CUDA graph has one call per copy. Copies of small inputs do not exceed the cache, which holds them in
# training too.
_MAX_COPIES = 512


def cuda_clock(call: Call, repetitions: int) -> float:
    """Returns the seconds per call, measured with CUDA events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repetitions):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / repetitions


def capture(calls: Sequence[Call]) -> Call:
    """Captures all calls in one CUDA graph and returns its replay."""
    # Warm up on a side stream: a first call may allocate, which must not happen during the capture.
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(2):
            calls[0]()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def kernel_name(signature: str) -> str:
    """Returns `recursion` for `void ns::(anonymous namespace)::recursion<float, 3>(float const*)`."""
    found = re.search(r"(\w+)(?=[<(])", signature.replace("(anonymous namespace)::", ""))
    return found.group(1) if found else signature


def kernel_microseconds(call: Call, repetitions: int = 20) -> dict[str, float]:
    """Returns the microseconds per call in each kernel."""
    call()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(repetitions):
            call()
        torch.cuda.synchronize()
    result: dict[str, float] = {}
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CUDA and event.self_device_time_total > 0:
            name = kernel_name(event.key)
            result[name] = result.get(name, 0.0) + event.self_device_time_total / repetitions
    return result


def time_fields(
    calls: dict[str, Call], seconds: float, kind: str, clock: Callable[[Call, int], float] = cuda_clock
) -> dict[str, Row]:
    """Returns the fields of each call's row: the median, and the 10th and 90th percentiles."""
    fields = {}
    for name, turns in take_turns(calls, seconds, clock, _TURN_SECONDS).items():
        tenths = statistics.quantiles(turns, n=10, method="inclusive")
        spread = [1e3 * tenths[0], 1e3 * tenths[-1]]
        fields[name] = {f"{kind} ms": 1e3 * statistics.median(turns), f"{kind} spread ms": spread}
    return fields


# Prepares a contender: checks it, adds fields to its row, and returns the function of one input to time.
Prepare = Callable[[Row], Callable[..., object]]


def rotate(function: Callable[..., object], inputs: Sequence[object]) -> Call:
    """Returns a call of the function on the next input each time."""
    rotation = itertools.cycle(inputs)
    return lambda: function(next(rotation))


class Bench:
    """The device and the settings of all measurements of a run."""

    device = torch.device("cuda", 0)

    def __init__(self, cache_bytes: int, seconds: float, copy_elements: int) -> None:
        """`copy_elements`: size of the float32 tensor that measures the copy bandwidth."""
        self.cache_bytes = cache_bytes
        self.seconds = seconds
        source = torch.randn(copy_elements, device=self.device)
        copy = torch.empty_like(source)
        turns = take_turns({"copy": lambda: copy.copy_(source)}, seconds, cuda_clock, _TURN_SECONDS)["copy"]
        # Bytes per second that a copy reads and writes.
        self.bandwidth = 2 * source.nbytes / statistics.median(turns)

    def copies(self, tensor: Tensor) -> list[Tensor]:
        """Returns the tensor and copies of it, together more than twice the cache if the limit allows."""
        count = min(_MAX_COPIES, 2 * self.cache_bytes // tensor.nbytes + 1)
        gradient = tensor.requires_grad
        return [tensor, *(tensor.detach().clone().requires_grad_(gradient) for _ in range(count - 1))]

    def compare(
        self,
        op: str,
        shape: Sequence[int],
        inputs: Sequence[object],
        contenders: dict[str, Prepare],
        dtype: str = "float32",
        captured: Collection[str] = ("crnn_ext",),
    ) -> dict[str, Row]:
        """Returns a row per contender, with its times or a "note" on failure.

        `captured`: the contenders that are also timed in a CUDA graph.
        """
        rows = {name: new_row(op, shape, name, dtype) for name in contenders}
        functions, calls, graphs = {}, {}, {}
        for name, prepare in contenders.items():
            with note_errors(rows[name]):
                functions[name] = prepare(rows[name])
        for name, function in functions.items():
            with note_errors(rows[name]):
                call = rotate(function, inputs)
                cuda_clock(call, 2)
                calls[name] = call
        for name, fields in time_fields(calls, self.seconds, "eager").items():
            rows[name] |= fields
        # Captures come last: a failed capture can leave a stream unusable.
        for name in calls:
            if name in captured:
                with note_errors(rows[name], "no graph: "):
                    graphs[name] = capture([partial(functions[name], one) for one in inputs])
        for name, fields in time_fields(graphs, self.seconds, "graph").items():
            rows[name]["graph ms"] = fields["graph ms"] / len(inputs)
            rows[name]["graph spread ms"] = [value / len(inputs) for value in fields["graph spread ms"]]
        if "crnn_ext" in functions:
            try:
                rows["crnn_ext"]["kernels us"] = kernel_microseconds(rotate(functions["crnn_ext"], inputs))
            except Exception as error:
                rows["crnn_ext"]["not profiled"] = first_line(error)
        return rows

    def memory_sweep_ms(self, tensor: Tensor) -> float:
        """Returns the time to read or write a tensor once at the copy bandwidth, the unit of the floors."""
        return 1e3 * tensor.nbytes / self.bandwidth
