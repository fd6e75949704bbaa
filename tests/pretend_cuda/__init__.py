"""A CUDA device that is the CPU, for tests of what only a GPU would refuse: docs/testing.md."""

from pathlib import Path

import torch
from cuda_on_host import build

missing = build.missing
installed = False


def install() -> None:
    """Gives this process, which has a CPU build of torch, the device cuda:0 for good.

    Comes before anything imports crnn_ext.
    """
    global installed
    if torch.version.cuda is not None:
        raise RuntimeError("the pretend device is for CPU builds of torch")
    build.build(build.PRETEND_DEVICE, build.OPERATORS)
    torch.ops.load_library(build.PRETEND_DEVICE)

    from pretend_cuda import kernels, runtime

    installed = True
    runtime.install()
    _stand_in_for_the_cuda_library()
    kernels.register()


def _stand_in_for_the_cuda_library() -> None:
    """Lets crnn_ext find its CUDA library; what it finds is never loaded, as this torch has no CUDA."""
    from crnn_ext import _load

    built = _load.library_path

    def library_path(name: str) -> Path | None:
        return build.OPERATORS if name == "_C_cuda" else built(name)

    _load.library_path = library_path
    _load.load_libraries()
