"""A CUDA device on the CPU, which rejects what a GPU rejects; see docs/explanation/testing-kernels.md."""

from pathlib import Path

import torch
from cuda_on_host import build

unavailable_reason = build.unavailable_reason


def install() -> None:
    """Adds the device cuda:0 to a process with a CPU build of torch, permanently.

    Must run before crnn_ext is imported.
    """
    if torch.version.cuda is not None:
        raise RuntimeError("the pretend device requires a CPU build of torch")
    build.build(build.DEVICE_LIBRARY, build.OPERATOR_LIBRARY)
    torch.ops.load_library(build.DEVICE_LIBRARY)

    from pretend_cuda import kernels, runtime

    runtime.install()
    _patch_cuda_library_path()
    kernels.register()


def _patch_cuda_library_path() -> None:
    """Lets crnn_ext find a CUDA library. It is never loaded, because this torch has no CUDA."""
    from crnn_ext import _load

    built = _load.library_path

    def library_path(name: str) -> Path | None:
        return build.OPERATOR_LIBRARY if name == "_C_cuda" else built(name)

    _load.library_path = library_path
    _load.load_libraries()
