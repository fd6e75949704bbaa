"""One file that holds all it takes to read text: weights, architecture, charset and preprocessing.

It is a safetensors file. Its metadata has one entry, `crnn_ext`, a JSON object:

    {"format": 1, "architecture": {...}, "charset": {...}, "preprocessing": {...}}

Nothing in it is code or becomes code, and no network is made that is larger than the file.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crnn_ext.text import Charset

from .architecture import Architecture, Network
from .arguments import check_int, check_keys
from .files import replace_file
from .preprocessing import Preprocessing

FORMAT = 1
ENTRY = "crnn_ext"

# How files begin that torch.save writes: a zip archive, or a pickle of protocol 2 to 5.
_PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")


class CheckpointError(ValueError):
    """A file that is no usable checkpoint; the message names the file and what is wrong with it."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    network: Network
    architecture: Architecture
    charset: Charset
    preprocessing: Preprocessing


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes the file. One of the same name is replaced when the new one is complete, not before.

    Raises:
        ValueError: the parts do not belong together: the network is not of the architecture, or classes,
            channels or height differ; or a weight is not finite.
        OSError: the file cannot be written.
    """
    network, architecture, charset, preprocessing = checkpoint
    _check_parts(architecture, charset, preprocessing)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _check_state(state, _empty_network(architecture))
    settings = {
        "format": FORMAT,
        "architecture": architecture.to_dict(),
        "charset": charset.to_dict(),
        "preprocessing": preprocessing.to_dict(),
    }
    replace_file(path, save(state, {ENTRY: json.dumps(settings)}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file that `save_checkpoint` wrote. The file need not be trusted.

    Returns:
        Its parts; the network is on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the file cannot be opened, is damaged or foreign, or its parts do not belong
            together.
    """
    try:
        with open(path, "rb") as plain:
            start = plain.read(4)
        with safe_open(path, framework="pt") as file:
            settings = _settings(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        architecture = Architecture.from_dict(settings["architecture"])
        charset = Charset.from_dict(settings["charset"])
        preprocessing = Preprocessing.from_dict(settings["preprocessing"])
        _check_parts(architecture, charset, preprocessing)
        network = _empty_network(architecture)
        _check_state(state, network)
        network.to_empty(device="cpu").load_state_dict(state)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        if _PICKLE.match(start):
            raise CheckpointError(f"{path}: a pickle could run code and is not loaded") from error
        raise CheckpointError(f"{path}: it is no whole safetensors file: {error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(network.eval(), architecture, charset, preprocessing)


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of our entry in the metadata, of known format and keys."""
    if ENTRY not in metadata:
        raise ValueError(f"it is no checkpoint of crnn_ext: its metadata has no entry {ENTRY!r}")
    try:
        settings = json.loads(metadata[ENTRY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata {ENTRY!r} is no JSON: {error}") from error
    if isinstance(settings, dict):
        # Before anything else, as another format may have other keys.
        check_int("checkpoint", "format", settings.get("format"), FORMAT, FORMAT)
    return check_keys("checkpoint", settings, {"format", "architecture", "charset", "preprocessing"})


def _empty_network(architecture: Architecture) -> Network:
    """The network with weights that have shapes and dtypes, but take no memory."""
    with torch.device("meta"):
        return architecture.build()


def _check_parts(architecture: Architecture, charset: Charset, preprocessing: Preprocessing) -> None:
    for name, expected, owner, found in (
        ("nclass", architecture.nclass, "characters and the blank in charset", charset.num_classes),
        ("nc", architecture.nc, "channels in preprocessing", preprocessing.channels),
        ("imgH", architecture.imgH, "height in preprocessing", preprocessing.height),
    ):
        if found != expected:
            raise ValueError(f"checkpoint: {name} of the architecture is {expected}, but {owner} is {found}")


def _check_state(state: Mapping[str, Tensor], network: Network) -> None:
    """Raises ValueError unless the state has the tensors of the network, and all are finite."""
    expected = network.state_dict()
    for problem, names in (
        ("are missing", expected.keys() - state),
        ("are unknown", state.keys() - expected),
    ):
        if names:
            raise ValueError(f"checkpoint: {len(names)} tensors {problem}, the first is {min(names)!r:.60}")
    for name, tensor in state.items():
        shape, dtype = expected[name].shape, expected[name].dtype
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(
                f"checkpoint: {name} must be {dtype} {tuple(shape)}, and it is {tensor.dtype} "
                f"{tuple(tensor.shape)}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"checkpoint: {name} must be finite, and it holds NaN or infinity")
