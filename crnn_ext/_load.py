"""Loads the operator libraries into torch: `_C` always, `_C_cuda` if torch is a CUDA build."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch


def library_path(name: str) -> Path | None:
    """The path of the native library `name` of this package, or None if it was not built."""
    folder = Path(__file__).parent
    candidates = (folder / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def load_libraries() -> None:
    """Registers all operators of this build that this torch can run."""
    cpu = library_path("_C")
    if cpu is None:
        raise ImportError(
            "crnn_ext was not built: the library _C is missing next to the Python files. "
            "Install the package (pip install .), or run make test once in a checkout."
        )
    torch.ops.load_library(str(cpu))
    cuda = library_path("_C_cuda")
    if cuda is not None and torch.version.cuda is not None:
        torch.ops.load_library(str(cuda))
