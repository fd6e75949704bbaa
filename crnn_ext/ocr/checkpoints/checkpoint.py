"""One file that holds all it takes to read text: weights, architecture, charset and preprocessing.

It is a safetensors file. Its metadata has one entry, `crnn_ext`, a JSON object:

    {"format": 1, "version": "0.1.0", "architecture": {...}, "charset": {...}, "preprocessing": {...},
     "metadata": {...}}

Nothing in it is code or becomes code, and no network is made that is larger than the file.
"""

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crnn_ext import __version__
from crnn_ext.ocr.images import Preprocessing
from crnn_ext.ocr.system.arguments import check_int, check_keys
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes
from crnn_ext.text import Charset

from .architecture import Architecture, Network

FORMAT_VERSION = 1
METADATA_KEY = "crnn_ext"
# The entry by which the state of a training run, a safetensors file too, is told from a checkpoint.
TRAINING_METADATA_KEY = "crnn_ext_training"
# Notes are for people. Data of any size belongs into a file of its own.
MAX_METADATA_LENGTH = 1 << 16

# The keys of the parts that are JSON objects.
_PARTS = {
    "architecture": Architecture("CRNN", nclass=2).to_dict().keys(),
    "charset": Charset("a").to_dict().keys(),
    "preprocessing": Preprocessing().to_dict().keys(),
}
# Files of the first version have none of these.
_LATER_KEYS: dict[str, Any] = {"version": "", "metadata": {}}

# How files begin that torch.save writes: a zip archive, or a pickle of protocol 2 to 5.
_PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")


class CheckpointError(ValueError):
    """A file that is no usable checkpoint; the message names the file and what is wrong with it."""


class CheckpointWarning(UserWarning):
    """A checkpoint holds something that this version does not know; the message names the file and what."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds.

    `metadata` are notes of any kind, such as the training data or the error rates: texts by name, at most
    65,536 characters in all. `version` is that of the crnn_ext that wrote the file, "" if it does not say.
    """

    network: Network
    architecture: Architecture
    charset: Charset
    preprocessing: Preprocessing
    metadata: Mapping[str, str] = {}
    version: str = __version__


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes the file, as of this version. One of the same name is replaced when the new one is complete.

    Raises:
        TypeError: metadata holds something else than texts.
        ValueError: the parts do not belong together: the network is not of the architecture, or classes,
            channels or height differ; a weight is not finite; or metadata is too long.
        OSError: the file cannot be written.
    """
    _check_parts(checkpoint.architecture, checkpoint.charset, checkpoint.preprocessing)
    _check_metadata(checkpoint.metadata)
    network = checkpoint.network
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _check_state(state, checkpoint.architecture.build_on_meta())
    atomic_write_bytes(path, save(state, {METADATA_KEY: settings_json(checkpoint)}))


def settings_json(checkpoint: Checkpoint) -> str:
    """What a checkpoint holds beside the weights, as JSON."""
    settings = {
        "format": FORMAT_VERSION,
        "version": __version__,
        "architecture": checkpoint.architecture.to_dict(),
        "charset": checkpoint.charset.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "metadata": dict(checkpoint.metadata),
    }
    return json.dumps(settings)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file that `save_checkpoint` wrote. The file need not be trusted.

    Settings that this version does not know are left out, with one CheckpointWarning that names them.

    Returns:
        Its parts; the network is on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the file cannot be opened, is damaged or foreign, its parts do not belong together,
            or it needs a newer version.
    """
    try:
        with open(path, "rb") as plain:
            start = plain.read(4)
        with safe_open(path, framework="pt") as file:
            settings = _settings(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        try:
            known, unknown = _known_settings(settings)
            architecture = Architecture.from_dict(known["architecture"])
            charset = Charset.from_dict(known["charset"])
            preprocessing = Preprocessing.from_dict(known["preprocessing"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}{_newer(settings)}") from error
        checkpoint = build_checkpoint(
            state, architecture, charset, preprocessing, known["metadata"], known["version"]
        )
    except IsADirectoryError as error:
        raise CheckpointError(
            f"{path}: it is a folder; the checkpoint in that of a run is best.safetensors"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        if _PICKLE.match(start):
            raise CheckpointError(
                f"{path}: a pickle could run code and is not loaded; crnn-ext import takes weights from one"
            ) from error
        raise CheckpointError(f"{path}: it is no whole safetensors file: {error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if unknown:
        warnings.warn(
            f"{path}: crnn_ext {__version__} does not know, and leaves out, {_listed(unknown)}"
            f"{_newer(settings)}",
            CheckpointWarning,
            stacklevel=2,
        )
    return checkpoint


def build_checkpoint(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    charset: Charset,
    preprocessing: Preprocessing,
    metadata: Mapping[str, str],
    version: str = __version__,
) -> Checkpoint:
    """The checkpoint whose network has this state dict; it is on the CPU and in evaluation mode.

    Raises:
        TypeError, ValueError: as `save_checkpoint`.
    """
    _check_parts(architecture, charset, preprocessing)
    _check_metadata(metadata)
    network = architecture.build_on_meta()
    _check_state(state, network)
    network.to_empty(device="cpu").load_state_dict(state)
    return Checkpoint(network.eval(), architecture, charset, preprocessing, metadata, version)


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of our entry in the metadata."""
    if METADATA_KEY not in metadata:
        if TRAINING_METADATA_KEY in metadata:
            raise ValueError("it is the state of a training run; the checkpoint is beside it")
        raise ValueError(
            f"it is a safetensors file, but no checkpoint of crnn_ext: its metadata has no entry {METADATA_KEY!r}"
        )
    try:
        settings = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata {METADATA_KEY!r} is no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise TypeError(f"checkpoint: it must be a mapping, and it is {settings!r:.60}")
    return settings


def _known_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings with the keys that are known and no others, and the names of the others."""
    # Before anything else, as another format may have other keys.
    check_int("checkpoint", "format", settings.get("format"), FORMAT_VERSION, FORMAT_VERSION)
    keys = {"format", *_LATER_KEYS, *_PARTS}
    unknown = [key for key in settings if key not in keys]
    known = {**_LATER_KEYS, **{key: value for key, value in settings.items() if key in keys}}
    check_keys("checkpoint", known, keys)
    if not isinstance(known["version"], str):
        raise TypeError(f"checkpoint: version must be a str, and it is {known['version']!r:.60}")
    for name, part_keys in _PARTS.items():
        part = known[name]
        if isinstance(part, dict):
            unknown += [f"{name}.{key}" for key in part if key not in part_keys]
            known[name] = {key: value for key, value in part.items() if key in part_keys}
    return known, unknown


def _newer(settings: Mapping[str, Any]) -> str:
    """What to add to a message about a file that a newer version wrote; nothing for others."""
    version, number = settings.get("version"), settings.get("format")
    named = isinstance(version, str) and _release(version) > _release(__version__)
    if not named and not (isinstance(number, int) and number > FORMAT_VERSION):
        return ""
    writer = f"crnn_ext {version:.40}" if isinstance(version, str) else "a newer crnn_ext"
    return f"; {writer} wrote the file, and this is {__version__}: update crnn_ext"


def _release(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", version)[:3]]


def _listed(names: Iterable[str]) -> str:
    listed = ", ".join(map(repr, names))
    return listed if len(listed) <= 300 else f"{listed[:300]} ..."


def _check_parts(architecture: Architecture, charset: Charset, preprocessing: Preprocessing) -> None:
    for name, expected, owner, found in (
        ("nclass", architecture.nclass, "characters and the blank in charset", charset.num_classes),
        ("nc", architecture.nc, "channels in preprocessing", preprocessing.channels),
        ("imgH", architecture.imgH, "height in preprocessing", preprocessing.height),
    ):
        if found != expected:
            raise ValueError(f"checkpoint: {name} of the architecture is {expected}, but {owner} is {found}")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        raise TypeError(f"checkpoint: metadata must be a mapping, and it is {metadata!r:.60}")
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(
                f"checkpoint: metadata must map str to str, and it has {name!r:.60}: {value!r:.60}"
            )
    length = sum(len(name) + len(value) for name, value in metadata.items())
    if length > MAX_METADATA_LENGTH:
        raise ValueError(
            f"checkpoint: metadata must have at most {MAX_METADATA_LENGTH} characters, and it has {length}"
        )


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
