"""Import of weights that `torch.save` wrote, for the networks of this package and of their original scripts.

Such a file is a pickle. Only `torch.load(weights_only=True)` unpickles it: that creates tensors and plain
containers, and refuses objects that could run code.
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

# The keys of the weights in files of training scripts that save more than the weights.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
_BATCH_COUNT = "num_batches_tracked"
_DAMAGED = "torch.load(weights_only=True) cannot read the file: it is damaged or not written by torch.save"


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
    """Reads the weights of a network. The file may be untrusted.

    The file contains a state dict, either directly or as the entry "state_dict", "model_state_dict" or
    "model" of a dict. Names may begin with "module.", and batch counts may be missing. The number of classes,
    hidden units and channels and the width are inferred from the shapes of the weights; the arguments give
    what cannot be inferred.

    Args:
        path: the file.
        charset: the characters in the order of the network's classes, and the blank.
        network: "CRNN", "CRNN_v2" or "CRNN_res"; None selects the one whose weights have these names.
        leaky_relu: whether it was trained with LeakyReLU(0.2).
        mean: subtracted from values from 0 (black) to 1 (white), as in `Preprocessing`.
        std: what the values were then divided by.
        width: the columns that every image was scaled to; None if images kept their aspect ratio.

    Raises:
        CheckpointError: the file cannot be opened, is damaged, contains anything but weights, or contains
            the weights of another network; the charset has a different number of classes; an argument is
            invalid.
    """
    try:
        state = _state_dict(_load_pickle(path), os.path.getsize(path))
        architecture = Architecture.from_state_dict(state, network, leaky_relu)
        for name in architecture.tensor_shapes():
            if name.endswith(_BATCH_COUNT):
                state.setdefault(name, torch.tensor(0))
        preprocessing = Preprocessing(channels=architecture.nc, mean=mean, std=std, width=width)
        notes = {"imported from": Path(path).name}
        return build_checkpoint(state, architecture, charset, preprocessing, notes)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _load_pickle(path: str | Path) -> object:
    """Loads the file: plain containers, with tensors on the CPU."""
    _check_archive(path)
    if _contains_bytearray(path):
        raise ValueError("contains more than weights (bytearray) and is not loaded")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about objects that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damage can cause any error
        # The message of torch explains how to load the file anyway; do not repeat that advice.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is not None:
            problem = (
                f"contains more than weights ({refused[1]:.80}), which could run code, and is not loaded"
            )
        else:
            problem = _DAMAGED
        raise ValueError(problem) from error


def _check_archive(path: str | Path) -> None:
    """Raises ValueError for a zip archive that torch.save did not write."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            return  # the older format, or not a file of torch
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError):
        raise ValueError(_DAMAGED) from None
    if any(entry.filename.endswith("constants.pkl") for entry in entries):
        raise ValueError("TorchScript programs could run code and are not loaded")
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise ValueError("the archive is compressed; torch.save never writes compressed archives")


def _contains_bytearray(path: str | Path) -> bool:
    """Whether a pickle in the file references bytearray: a few bytes of pickle could allocate any amount.

    torch allows it. A plain search finds it: pickles store names verbatim, and a checked archive is
    uncompressed.
    """
    if os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return re.search(rb"c(__builtin__|builtins)\nbytearray\n", content) is not None


def _state_dict(loaded: object, size: int) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes, by name, without the prefix of (Distributed)DataParallel."""
    state = loaded
    if isinstance(loaded, Mapping):
        state = next((loaded[name] for name in _STATE_DICT_KEYS if name in loaded), loaded)
    if not isinstance(state, Mapping):
        raise TypeError(f"the file must contain a state dict, got {type(state).__name__}")
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise TypeError(
                f"a state dict must map names to tensors, got {type(tensor).__name__} for {name!r:.60}; "
                f"a file with other contents must name it {', '.join(_STATE_DICT_KEYS)}"
            )
        if tensor.layout is not torch.strided or not tensor.is_cpu or tensor.is_quantized:
            raise TypeError(f"weights must be dense, unquantized CPU tensors; {name!r:.60} is not")
    total = sum(tensor.nbytes for tensor in state.values())
    if total > size:  # overlapping rows; a network would allocate each of them
        raise ValueError(f"the tensors must be no larger than the file ({size} bytes), got {total} bytes")
    return {
        # The networks are float32; some scripts store half-precision weights.
        name.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
