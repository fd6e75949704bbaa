"""One file that holds all it takes to read text: weights, architecture, charset and preprocessing.

It is a safetensors file. Its metadata has one entry, `crnn_ext`, a JSON object:

    {"format": 1, "architecture": {...}, "charset": {...}, "preprocessing": {...}}

Nothing in it is code or becomes code, and loading it allocates no more than the file holds.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crnn_ext.text import Charset

from .architecture import Architecture, Network
from .arguments import check_int, check_keys
from .preprocessing import Preprocessing

FORMAT = 1
ENTRY = "crnn_ext"

# The types in networks' states, and safetensors' names of them.
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}

# What a tensor must have in a file: its shape and its type.
_Outline = tuple[tuple[int, ...], str]


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
            channels or height differ.
        OSError: the file cannot be written.
    """
    network, architecture, charset, preprocessing = checkpoint
    _check_parts(architecture, charset, preprocessing)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _check_tensors(architecture, _outlines(state))
    settings = {
        "format": FORMAT,
        "architecture": architecture.to_dict(),
        "charset": charset.to_dict(),
        "preprocessing": preprocessing.to_dict(),
    }
    unfinished = Path(f"{path}.{os.getpid()}.tmp")
    try:
        save_file(state, unfinished, metadata={ENTRY: json.dumps(settings)})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
            architecture = Architecture.from_dict(settings["architecture"])
            charset = Charset.from_dict(settings["charset"])
            preprocessing = Preprocessing.from_dict(settings["preprocessing"])
            _check_parts(architecture, charset, preprocessing)
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            _check_tensors(
                architecture,
                {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()},
            )
            # Only now is it certain that the network is not larger than the file.
            network = architecture.outline().to_empty(device="cpu")
            network.load_state_dict({name: _finite(name, file.get_tensor(name)) for name in names})
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        pickled = start == b"PK\x03\x04" or start[:1] == b"\x80"
        kind = (
            "a pickle, which could run code and is not loaded"
            if pickled
            else f"no whole safetensors file: {error}"
        )
        raise CheckpointError(f"{path}: it is {kind}") from error
    except (TypeError, ValueError, RecursionError) as error:
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


def _check_parts(architecture: Architecture, charset: Charset, preprocessing: Preprocessing) -> None:
    for name, expected, owner, found in (
        ("nclass", architecture.nclass, "characters and the blank in charset", charset.num_classes),
        ("nc", architecture.nc, "channels in preprocessing", preprocessing.channels),
        ("imgH", architecture.imgH, "height in preprocessing", preprocessing.height),
    ):
        if found != expected:
            raise ValueError(f"checkpoint: {name} of the architecture is {expected}, but {owner} is {found}")
    needed = architecture.outline().min_width
    if preprocessing.min_width < needed:
        raise ValueError(
            f"checkpoint: min_width of the preprocessing must be at least {needed} for {architecture.name}, "
            f"and it is {preprocessing.min_width}"
        )


def _check_tensors(architecture: Architecture, found: Mapping[str, _Outline]) -> None:
    """Raises ValueError unless these are the tensors of a network of the architecture."""
    expected = _outlines(architecture.outline().state_dict())
    for problem, names in (
        ("are missing", expected.keys() - found),
        ("are unknown", found.keys() - expected),
    ):
        if names:
            raise ValueError(f"checkpoint: {len(names)} tensors {problem}, the first is {min(names)!r:.60}")
    for name, (shape, dtype) in expected.items():
        if found[name] != (shape, dtype):
            raise ValueError(
                f"checkpoint: {name} must be {dtype} {shape} for this {architecture.name}, "
                f"and it is {found[name][1]} {found[name][0]}"
            )


def _outlines(state: Mapping[str, Tensor]) -> dict[str, _Outline]:
    return {
        name: (tuple(tensor.shape), _DTYPES.get(tensor.dtype, str(tensor.dtype)))
        for name, tensor in state.items()
    }


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise ValueError(f"checkpoint: {name} must be finite, and it holds NaN or infinity")
    return tensor
