"""The one stream of the pretend device: what may not be waited for in it, and what a graph records of it."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

host_view = torch.ops.pretend_cuda.host_view

sync_debug_mode = 0
capture: "Capture | None" = None


class Capture:
    """The calls between capture_begin and capture_end, which a replay makes again."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[[], Any], Any, Any]] = []
        self.failed = False
        torch.ops.pretend_cuda.begin_capture()

    def add(self, call: Callable[[], Any], op: Any, results: Any) -> None:
        self._calls.append((call, op, results))

    def end(self) -> None:
        """Leaves garbage in the new tensors: a GPU computes nothing before the graph is replayed."""
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
    """The results that share no memory with an argument; what does was written by the call itself."""
    listed = results if isinstance(results, tuple) else (results,)
    declared = op._schema.returns
    return flatten_tensors(
        [result for result, of in zip(listed, declared, strict=False) if of.alias_info is None]
    )


def flatten_tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of nested lists."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in flatten_tensors(part)]
    return []


def check_sync_allowed(what: str) -> None:
    """Is called by whatever waits for the GPU."""
    if capture is not None:
        fail(f"CUDA error: operation not permitted when stream is capturing ({what})")
    if sync_debug_mode == 2:
        raise RuntimeError(f"called a synchronizing CUDA operation ({what})")
    if sync_debug_mode == 1:
        warnings.warn(f"called a synchronizing CUDA operation ({what})", stacklevel=3)


def fail(message: str) -> None:
    """An error in a capture, after which the graph is lost."""
    if capture is not None:
        capture.failed = True
    raise RuntimeError(message)


def launch(compute: Callable[..., Any], op: Any, args: Any, kwargs: Any) -> Any:
    """The results of `compute`, the work of `op`; in a capture it becomes part of the graph."""
    if capture is None:
        return compute(op, args, kwargs)
    if capture.failed:
        fail("CUDA error: operation failed due to a previous error during capture")
    results = compute(op, args, kwargs)
    capture.add(partial(compute, op, args, kwargs), op, results)
    return results
