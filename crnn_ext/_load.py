"""Loads the operator libraries into torch: `_C` always, `_C_cuda` where torch can use it."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch


def library_path(name: str) -> Path | None:
    """Where the native library `name` of this package lies, or None if it was not built."""
    folder = Path(__file__).parent
    found = (folder / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def load_libraries() -> None:
    """Registers every operator that this build has and this torch can run."""
    cpu = library_path("_C")
    if cpu is None:
        raise ImportError(
            "crnn_ext was not built: its library _C is missing beside the Python files. "
            "Install the package (pip install .), or in a checkout run make test once."
        )
    torch.ops.load_library(str(cpu))
    cuda = library_path("_C_cuda")
    if cuda is not None and torch.version.cuda is not None:
        torch.ops.load_library(str(cuda))
