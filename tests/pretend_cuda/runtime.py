"""The functions and classes of the CUDA runtime that torch.cuda uses, for the pretend device."""

import os
import time
from types import SimpleNamespace
from typing import Any

import torch

from pretend_cuda import stream

_PROPERTIES = SimpleNamespace(
    name="pretend GPU",
    major=9,
    minor=0,
    total_memory=1 << 34,
    multi_processor_count=2,
    L2_cache_size=1 << 12,
    max_threads_per_multi_processor=2048,
    shared_memory_per_block_optin=227 << 10,
    warp_size=32,
)


class Stream:
    """A stream that has always finished."""

    device_index = 0
    device_type = 1
    cuda_stream = 0
    device = torch.device("cuda", 0)

    def __init__(self, device: Any = None, priority: int = 0, stream_id: int | None = None, **_: Any) -> None:
        self.stream_id = id(self) if stream_id is None else stream_id

    def wait_stream(self, other: "Stream") -> None:
        pass

    def wait_event(self, event: "Event") -> None:
        pass

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _synchronize()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.stream_id == other.stream_id

    def __hash__(self) -> int:
        return hash(self.stream_id)


class Event:
    """An event that records CPU time."""

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self._timed = enable_timing
        self._time: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        self._time = time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _synchronize()

    def elapsed_time(self, end: "Event") -> float:
        if not (self._timed and end._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._time is None or end._time is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return (end._time - self._time) * 1000


class CUDAGraph:
    """A graph that holds the calls of a capture."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._capture: stream.Capture | None = None

    def capture_begin(self, *_: Any, **__: Any) -> None:
        if stream.capture is not None:
            stream.fail("CUDA error: a capture is already in progress")
        stream.capture = stream.Capture()

    def capture_end(self) -> None:
        ended, stream.capture = stream.capture, None
        assert ended is not None
        ended.end()
        if ended.failed:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self._capture = ended

    def replay(self) -> None:
        if self._capture is None:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        self._capture.replay()

    def reset(self) -> None:
        self._capture = None

    def pool(self) -> tuple[int, int]:
        return (0, 0)


_current = Stream(stream_id=0)


def _set_stream(chosen: Stream | None) -> None:
    global _current
    _current = chosen or _current


def _synchronize() -> None:
    if stream.capture is not None:
        stream.fail("CUDA error: operation not permitted when stream is capturing (synchronize)")


def _set_device(index: int) -> None:
    if index != 0:
        raise RuntimeError(f"CUDA error: invalid device ordinal ({index})")


def _set_sync_debug_mode(mode: int) -> None:
    stream.sync_debug_mode = mode


def _capturing() -> bool:
    return stream.capture is not None


def _new_storage(cls: type, *args: Any, device: Any = None, **kwargs: Any) -> torch.UntypedStorage:
    """torch.UntypedStorage.__new__, which CPU builds of torch restrict to the CPU."""
    if device is not None and torch.device(device).type == "cuda":
        return torch.empty(args[0] if args else 0, dtype=torch.uint8, device=device).untyped_storage()
    return torch._C.StorageBase.__new__(cls, *args, device=device, **kwargs)


def install() -> None:
    """Replaces the functions and classes in torch._C and torch.cuda."""
    process = os.getpid()
    native = {
        "_cuda_init": lambda: None,
        "_cuda_getDeviceCount": lambda: 1,
        "_cuda_getDevice": lambda: 0,
        "_cuda_setDevice": _set_device,
        "_cuda_getCurrentRawStream": lambda device: 0,
        "_cuda_synchronize": _synchronize,
        "_cuda_emptyCache": lambda: None,
        "_host_emptyCache": lambda: None,
        "_cuda_sleep": lambda cycles: None,
        "_cuda_set_sync_debug_mode": _set_sync_debug_mode,
        "_cuda_get_sync_debug_mode": lambda: stream.sync_debug_mode,
    }
    for name, answer in native.items():
        setattr(torch._C, name, answer)
    patches = {
        "_cudart": SimpleNamespace(),
        "_is_in_bad_fork": lambda: os.getpid() != process,
        "_exchange_device": lambda index: 0,
        "_maybe_exchange_device": lambda index: 0,
        "device_count": lambda: 1,
        "get_device_properties": lambda device=None: _PROPERTIES,
        "mem_get_info": lambda device=None: tuple(
            os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        ),
        "get_device_name": lambda device=None: _PROPERTIES.name,
        "get_device_capability": lambda device=None: (_PROPERTIES.major, _PROPERTIES.minor),
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "current_stream": lambda device=None: _current,
        "default_stream": lambda device=None: Stream(stream_id=0),
        "set_stream": _set_stream,
        "is_current_stream_capturing": _capturing,
        "default_generators": (torch.Generator("cuda"),),
    }
    for name, answer in patches.items():
        setattr(torch.cuda, name, answer)
    torch.backends.cudnn.is_acceptable = lambda tensor: False
    torch.UntypedStorage.__new__ = _new_storage
    torch.cuda.graphs.is_current_stream_capturing = _capturing
