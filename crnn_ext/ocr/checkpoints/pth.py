"""Weights that `torch.save` wrote, of the networks of this package or of the scripts that those come from.

Such a file is a pickle. `torch.load(weights_only=True)` is all that ever reads it: it makes tensors and plain
containers, and refuses what could run code.
"""

import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path

import torch
from torch import Tensor

from crnn_ext.ocr.images import Preprocessing
from crnn_ext.text import Charset

from .architecture import Architecture
from .checkpoint import Checkpoint, CheckpointError, build_checkpoint

# Under which name training scripts keep the weights, where they save more than those.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_COUNT = "num_batches_tracked"
_DAMAGED = "torch.load(weights_only=True) cannot read it: it is damaged, or no file of torch.save"


def load_pth(
    path: str | Path,
    charset: Charset,
    *,
    network: str | None = None,
    leaky_relu: bool = False,
    mean: float = 0.5,
    std: float = 0.5,
    width: int | None = None,
) -> Checkpoint:
    """Reads the weights of a network. The file need not be trusted.

    It holds a state dict, alone or as "state_dict", "model_state_dict" or "model" of a dict; names may begin
    with "module.", and counts of batches may be missing. Classes, hidden units, channels and width are told
    by the shapes of the weights; what no weight tells are the arguments.

    Args:
        path: the file.
        charset: the characters in the order of the network's classes, and the blank.
        network: "CRNN", "CRNN_v2" or "CRNN_res"; None: the one whose weights have these names.
        leaky_relu: whether it was trained with LeakyReLU(0.2).
        mean, std: how values from 0 (black) to 1 (white) were normalised, as in `Preprocessing`.
        width: the columns that every image was scaled to; None if images kept their aspect ratio.

    Raises:
        CheckpointError: the file cannot be opened, is damaged, holds something else than weights or those of
            another network; the charset has another number of classes; an argument breaks its rule.
    """
    try:
        state = _state_dict(_loaded(path), os.path.getsize(path))
        architecture = Architecture.from_state_dict(state, network, leaky_relu)
        for name in architecture.tensor_shapes():
            if name.endswith(_COUNT):
                state.setdefault(name, torch.tensor(0))
        preprocessing = Preprocessing(channels=architecture.nc, mean=mean, std=std, width=width)
        notes = {"imported from": Path(path).name}
        return build_checkpoint(state, architecture, charset, preprocessing, notes)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _loaded(path: str | Path) -> object:
    """What the file holds: tensors, on the CPU, and containers."""
    _check_archive(path)
    if _makes_bytes(path):
        raise ValueError("it holds more than weights (bytearray), and is not loaded")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the damage led to
        # torch's own message tells how to load it all the same.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is not None:
            problem = (
                f"it holds more than weights ({refused[1]:.80}), which could run code, and is not loaded"
            )
        else:
            problem = _DAMAGED
        raise ValueError(problem) from error


def _check_archive(path: str | Path) -> None:
    """Raises ValueError for a zip archive that torch.save has not written."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            return  # the older format, or nothing that torch reads
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError):
        raise ValueError(_DAMAGED) from None
    if any(entry.filename.endswith("constants.pkl") for entry in entries):
        raise ValueError("it is a TorchScript program, which could run code, and is not loaded")
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise ValueError("it is a compressed archive, which torch.save never writes")


def _makes_bytes(path: str | Path) -> bool:
    """Whether a pickle in the file names bytearray, which makes as many bytes as a few of its own ask for.

    torch lets it pass. A name stands in a pickle as it is, and a pickle does so in a checked archive.
    """
    if os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return re.search(rb"c(__builtin__|builtins)\nbytearray\n", content) is not None


def _state_dict(loaded: object, size: int) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes, by their names inside a (Distributed)DataParallel wrapper."""
    state = loaded
    if isinstance(loaded, Mapping):
        state = next((loaded[name] for name in _WRAPPERS if name in loaded), loaded)
    if not isinstance(state, Mapping):
        raise TypeError(f"it must hold a state dict, and it holds {type(state).__name__}")
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise TypeError(
                f"a state dict must map names to tensors, and {name!r:.60} is {type(tensor).__name__}; "
                f"beside other things it must be named {', '.join(_WRAPPERS)}"
            )
        if tensor.layout is not torch.strided or not tensor.is_cpu or tensor.is_quantized:
            raise TypeError(f"weights must be plain tensors, and {name!r:.60} is of another kind")
    total = sum(tensor.nbytes for tensor in state.values())
    if total > size:  # rows that share their memory; a network has room for each
        raise ValueError(f"its tensors must be no larger than the file, and they have {total} bytes")
    return {
        # Half-precision weights, as some keep them, are those of a float32 network all the same.
        name.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
