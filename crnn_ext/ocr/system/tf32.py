"""Control of TF32 on GPUs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Allows or forbids TF32 for convolutions and LSTMs on GPUs; other products use full float32.

    TF32 keeps 10 of the 23 mantissa bits of float32. It is torch's default for convolutions and LSTMs. The
    settings apply to the whole process; the previous ones are restored at the end.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    with ExitStack() as stack:
        # Equivalent to assigning cudnn.allow_tf32, which torch's test helpers may have frozen.
        convolutions = (lambda: cudnn.allow_tf32, torch._C._set_cudnn_allow_tf32, allowed)
        stack.enter_context(_settings(*convolutions, [cudnn.conv, cudnn.rnn], "tf32" if allowed else "ieee"))
        products = (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
        stack.enter_context(_settings(*products, [matmul], "ieee"))
        yield


@contextmanager
def _settings(
    get: Callable[[], Any], set_: Callable[[Any], None], flag: Any, backends: list[Any], precision: str
) -> Iterator[None]:
    """Sets the precision of some backends through torch's old flag and the new setting of each backend.

    It sets both, and only where they differ: torch raises an error when a flag that contradicts the
    settings is read, and a setting that was written once no longer inherits from its parent.
    """
    before = [backend.fp32_precision for backend in backends]
    try:
        old_flag = get()
    except RuntimeError:  # the settings contradict the flag
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
            for setting in ("none", old):  # "none" suffices if the old value was inherited
                if backend.fp32_precision != old:
                    backend.fp32_precision = setting


def _effective(backend: Any) -> str:
    setting: str = backend.fp32_precision
    return "ieee" if setting == "none" else setting
