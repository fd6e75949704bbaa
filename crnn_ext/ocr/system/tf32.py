"""Whether a GPU rounds float32."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Has GPUs compute convolutions and LSTMs in TF32 or in full float32, and all else in the latter.

    TF32 keeps 10 of float32's 23 bits of a fraction, and is torch's own choice for these two. Its settings
    are of the whole process; those from before come back at the end.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    with ExitStack() as stack:
        # What assigning to cudnn.allow_tf32 does, unless torch's own helpers for tests have forbidden that.
        convolutions = (lambda: cudnn.allow_tf32, torch._C._set_cudnn_allow_tf32, allowed)
        stack.enter_context(_settings(*convolutions, [cudnn.conv, cudnn.rnn], "tf32" if allowed else "ieee"))
        products = (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
        stack.enter_context(_settings(*products, [matmul], "ieee"))
        yield


@contextmanager
def _settings(
    get: Callable[[], Any], set_: Callable[[Any], None], flag: Any, backends: list[Any], precision: str
) -> Iterator[None]:
    """The precision of some backends, by torch's older flag for all of them and by their newer settings.

    Both are set, and only where they have to change: torch refuses to read a flag that the settings
    contradict, and a setting that has once been written no longer follows those above it.
    """
    before = [backend.fp32_precision for backend in backends]
    try:
        old_flag = get()
    except RuntimeError:  # contradicted
        old_flag = None
    changed = old_flag is not None and old_flag != flag
    try:
        if changed:
            set_(flag)
        for backend in backends:
            if _effective(backend) != precision:
                backend.fp32_precision = precision
        yield
    finally:
        if changed:
            set_(old_flag)
        for backend, old in zip(backends, before, strict=True):
            for setting in ("none", old):  # "none" is enough where the old one came from above
                if backend.fp32_precision != old:
                    backend.fp32_precision = setting


def _effective(backend: Any) -> str:
    setting: str = backend.fp32_precision
    return "ieee" if setting == "none" else setting
