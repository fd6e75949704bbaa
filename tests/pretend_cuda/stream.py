"""The only stream of the pretend device: synchronization checks and graph capture."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

host_view = torch.ops.pretend_cuda.host_view

sync_debug_mode = 0
capture: "Capture | None" = None


class Capture:
    """The calls between capture_begin and capture_end, which a replay repeats."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[[], Any], Any, Any]] = []
        self.failed = False
        torch.ops.pretend_cuda.begin_capture()

    def add(self, call: Callable[[], Any], op: Any, results: Any) -> None:
        self._calls.append((call, op, results))

    def end(self) -> None:
        """Fills new tensors with garbage: a GPU computes nothing until the graph is replayed."""
        torch.ops.pretend_cuda.end_capture()
        for _, _, results in self._calls:
            for result in filter(lambda tensor: tensor.is_cuda, flatten_tensors(results)):
                torch.ops.pretend_cuda.fill_with_garbage(result)

    def replay(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():
            for call, op, results in self._calls:
                for to, result in zip(_new(op, results), _new(op, call()), strict=True):
                    host_view(to).copy_(host_view(result))


def _new(op: Any, results: Any) -> list[torch.Tensor]:
    """Returns the results that do not alias an argument. The call itself writes aliased results."""
    listed = results if isinstance(results, tuple) else (results,)
    declared = op._schema.returns
    return flatten_tensors(
        [result for result, of in zip(listed, declared, strict=False) if of.alias_info is None]
    )


def flatten_tensors(value: Any) -> list[torch.Tensor]:
    """Returns the tensors of nested lists."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in flatten_tensors(part)]
    return []


def check_sync_allowed(what: str) -> None:
    """Must be called by every operation that synchronizes with the GPU."""
    if capture is not None:
        fail(f"CUDA error: operation not permitted when stream is capturing ({what})")
    if sync_debug_mode == 2:
        raise RuntimeError(f"called a synchronizing CUDA operation ({what})")
    if sync_debug_mode == 1:
        warnings.warn(f"called a synchronizing CUDA operation ({what})", stacklevel=3)


def fail(message: str) -> None:
    """Raises an error and invalidates the current capture."""
    if capture is not None:
        capture.failed = True
    raise RuntimeError(message)


def launch(compute: Callable[..., Any], op: Any, args: Any, kwargs: Any) -> Any:
    """Runs `op` through `compute`. During a capture, the call becomes part of the graph."""
    if capture is None:
        return compute(op, args, kwargs)
    if capture.failed:
        fail("CUDA error: operation failed due to a previous error during capture")
    results = compute(op, args, kwargs)
    capture.add(partial(compute, op, args, kwargs), op, results)
    return results
