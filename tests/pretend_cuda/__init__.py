"""A CUDA device that is the CPU, for tests of what only a GPU would refuse: docs/explanation/testing-kernels.md."""

from pathlib import Path

import torch
from cuda_on_host import build

unavailable_reason = build.unavailable_reason


def install() -> None:
    """Gives this process, which has a CPU build of torch, the device cuda:0 for good.

    Comes before anything imports crnn_ext.
    """
    if torch.version.cuda is not None:
        raise RuntimeError("the pretend device is for CPU builds of torch")
    build.build(build.DEVICE_LIBRARY, build.OPERATOR_LIBRARY)
    torch.ops.load_library(build.DEVICE_LIBRARY)

    from pretend_cuda import kernels, runtime

    runtime.install()
    _patch_cuda_library_path()
    kernels.register()


def _patch_cuda_library_path() -> None:
    """Lets crnn_ext find its CUDA library; what it finds is never loaded, as this torch has no CUDA."""
    from crnn_ext import _load

    built = _load.library_path

    def library_path(name: str) -> Path | None:
        return build.OPERATOR_LIBRARY if name == "_C_cuda" else built(name)

    _load.library_path = library_path
    _load.load_libraries()
