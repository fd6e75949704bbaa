"""Replaces the CPU kernels of crnn_ext's operators by the CUDA kernels, built for the CPU."""

import functools
import os
import warnings
from contextlib import contextmanager

import torch

from cuda_on_host import build

KEY = torch._C.DispatchKey.PrivateUse3

unavailable_reason = build.unavailable_reason

# Seeds the rounding errors of exp2, log and log2. This seed changes a known loss more than most seeds do.
SEED = "16"


@functools.cache
def load():
    """Builds and loads the kernels, without using them yet."""
    build.build(build.OPERATOR_LIBRARY)
    os.environ.setdefault("CUDA_ON_HOST_SEED", SEED)
    torch.ops.load_library(build.OPERATOR_LIBRARY)


def names():
    """Returns the operators that have a CUDA kernel, without the namespace."""
    names = torch._C._dispatch_get_all_op_names()
    ours = [name for name in names if name.startswith("crnn_ext::")]
    return [
        name.removeprefix("crnn_ext::")
        for name in ours
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, KEY.name)
    ]


_active_overrides = 0


def cpu_kernels_overridden():
    """Returns whether operators on CPU tensors currently run the CUDA kernels."""
    return _active_overrides > 0


@contextmanager
def override_cpu_kernels():
    """Runs the CUDA kernels when operators are called with CPU tensors."""
    global _active_overrides
    library = torch.library.Library("crnn_ext", "IMPL", "CPU")
    _active_overrides += 1
    try:
        for name in names():
            operator = getattr(torch.ops.crnn_ext, name).default
            kernel = functools.partial(operator.redispatch, torch._C.DispatchKeySet(KEY))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
                library.impl(name, kernel, allow_override=True)
        yield
    finally:
        _active_overrides -= 1
        library._destroy()
