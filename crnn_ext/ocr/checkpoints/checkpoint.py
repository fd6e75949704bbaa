"""Checkpoints: one file with the weights, architecture, charset and preprocessing of a recognizer.

A checkpoint is a safetensors file. Its metadata has one entry, `crnn_ext`, a JSON object:

    {"format": 1, "version": "0.1.0", "architecture": {...}, "charset": {...}, "preprocessing": {...},
     "metadata": {...}}

Loading never executes code from the file, and never allocates a network larger than the file.
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
from crnn_ext._arguments import check_int, check_keys, check_str, check_type
from crnn_ext.ocr.images import Preprocessing
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes
from crnn_ext.text import Charset

from .architecture import Architecture, Network

FORMAT_VERSION = 1
METADATA_KEY = "crnn_ext"
# The metadata key of training states, which are safetensors files too.
TRAINING_METADATA_KEY = "crnn_ext_training"
# Metadata is for short notes; larger data belongs in a separate file.
MAX_METADATA_LENGTH = 1 << 16

# The keys of the sections, which are JSON objects.
_SECTION_KEYS = {
    "architecture": Architecture("CRNN", nclass=2).to_dict().keys(),
    "charset": Charset("a").to_dict().keys(),
    "preprocessing": Preprocessing().to_dict().keys(),
}
# Keys that the first version did not write, with their defaults.
_DEFAULTS: dict[str, Any] = {"version": "", "metadata": {}}

# The first bytes of a file that torch.save wrote: a zip archive, or a pickle of protocol 2 to 5.
_PICKLE_MAGIC = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")


class CheckpointError(ValueError):
    """The file is not a usable checkpoint; the message names the file and the reason."""


class CheckpointWarning(UserWarning):
    """The checkpoint has settings that this version does not know; the message names the file and them."""


class Checkpoint(NamedTuple):
    """The contents of a checkpoint file.

    `metadata` maps names to notes, for example on the training data or the error rates; it has at most 65,536
    characters in total. `version` is the version of crnn_ext that wrote the file, or "" if the file has none.
    """

    network: Network
    architecture: Architecture
    charset: Charset
    preprocessing: Preprocessing
    metadata: Mapping[str, str] = {}
    version: str = __version__


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically, as written by this version of crnn_ext.

    Raises:
        TypeError: metadata has a key or a value that is not a str.
        ValueError: the parts are inconsistent: the network does not have the architecture, or classes,
            channels or height differ; a weight is not finite; or metadata is too long.
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    _check_consistency(checkpoint.architecture, checkpoint.charset, checkpoint.preprocessing)
    _check_metadata(checkpoint.metadata)
    network = checkpoint.network
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _check_state(state, checkpoint.architecture.build_on_meta())
    atomic_write_bytes(path, save(state, {METADATA_KEY: settings_json(checkpoint)}))


def settings_json(checkpoint: Checkpoint) -> str:
    """All contents of a checkpoint except the weights, as JSON."""
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
    """Reads a file that `save_checkpoint` wrote. The file may be untrusted.

    Unknown settings are ignored, with one CheckpointWarning that names them.

    Returns:
        The contents; the network is on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the file cannot be opened, is damaged or not a checkpoint, has inconsistent parts,
            or needs a newer version of crnn_ext.
    """
    try:
        with open(path, "rb") as plain:
            start = plain.read(4)
        with safe_open(path, framework="pt") as file:
            settings = _settings(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (file is not a mapping)
        try:
            known, unknown = _known_settings(settings)
            architecture = Architecture.from_dict(known["architecture"])
            charset = Charset.from_dict(known["charset"])
            preprocessing = Preprocessing.from_dict(known["preprocessing"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}{_upgrade_hint(settings)}") from error
        checkpoint = build_checkpoint(
            state, architecture, charset, preprocessing, known["metadata"], known["version"]
        )
    except IsADirectoryError as error:
        raise CheckpointError(
            f"{path}: is a folder; the checkpoint in the folder of a training run is best.safetensors"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except SafetensorError as error:
        if _PICKLE_MAGIC.match(start):
            raise CheckpointError(
                f"{path}: pickles could run code and are not loaded; crnn-ext import reads weights from them"
            ) from error
        raise CheckpointError(f"{path}: not a valid safetensors file: {error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if unknown:
        warnings.warn(
            f"{path}: crnn_ext {__version__} ignores unknown settings: {_quoted(unknown)}"
            f"{_upgrade_hint(settings)}",
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
    """Builds a checkpoint from a state dict; its network is on the CPU and in evaluation mode.

    Raises:
        TypeError, ValueError: as `save_checkpoint`.
    """
    _check_consistency(architecture, charset, preprocessing)
    _check_metadata(metadata)
    network = architecture.build_on_meta()
    _check_state(state, network)
    network.to_empty(device="cpu").load_state_dict(state)
    return Checkpoint(network.eval(), architecture, charset, preprocessing, metadata, version)


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The settings in the metadata of a safetensors file."""
    if METADATA_KEY not in metadata:
        if TRAINING_METADATA_KEY in metadata:
            raise ValueError("this is the state of a training run; the checkpoint is in the same folder")
        raise ValueError(
            f"not a crnn_ext checkpoint: the metadata of this safetensors file has no entry {METADATA_KEY!r}"
        )
    try:
        settings: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata entry {METADATA_KEY!r} is not valid JSON: {error}") from error
    check_type("checkpoint", settings, dict, "a mapping")
    return settings


def _known_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings without unknown keys, and the names of the unknown keys."""
    # Check the format first: other formats may have other keys.
    check_int("checkpoint: format", settings.get("format"), FORMAT_VERSION, FORMAT_VERSION)
    keys = {"format", *_DEFAULTS, *_SECTION_KEYS}
    unknown = [key for key in settings if key not in keys]
    known = {**_DEFAULTS, **{key: value for key, value in settings.items() if key in keys}}
    check_keys("checkpoint", known, keys)
    check_str("checkpoint: version", known["version"])
    for name, section_keys in _SECTION_KEYS.items():
        section = known[name]
        if isinstance(section, dict):
            unknown += [f"{name}.{key}" for key in section if key not in section_keys]
            known[name] = {key: value for key, value in section.items() if key in section_keys}
    return known, unknown


def _upgrade_hint(settings: Mapping[str, Any]) -> str:
    """The end of a message about a file that a newer version wrote; "" for other files."""
    version, number = settings.get("version"), settings.get("format")
    is_newer = isinstance(version, str) and _version_numbers(version) > _version_numbers(__version__)
    if not is_newer and not (isinstance(number, int) and number > FORMAT_VERSION):
        return ""
    writer = f"crnn_ext {version:.40}" if isinstance(version, str) else "a newer crnn_ext"
    return f"; the file was written by {writer}, this is {__version__}: update crnn_ext"


def _version_numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", version)[:3]]


def _quoted(names: Iterable[str]) -> str:
    quoted = ", ".join(map(repr, names))
    return quoted if len(quoted) <= 300 else f"{quoted[:300]} ..."


def _check_consistency(architecture: Architecture, charset: Charset, preprocessing: Preprocessing) -> None:
    for name, expected, owner, found in (
        ("nclass", architecture.nclass, "characters plus the blank in charset", charset.num_classes),
        ("nc", architecture.nc, "channels in preprocessing", preprocessing.channels),
        ("imgH", architecture.imgH, "height in preprocessing", preprocessing.height),
    ):
        if found != expected:
            raise ValueError(
                f"checkpoint: {owner} must be {expected} ({name} of the architecture), got {found}"
            )


def _check_metadata(metadata: Any) -> None:
    check_type("checkpoint: metadata", metadata, Mapping, "a mapping")
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"checkpoint: metadata must map str to str, got {name!r:.60}: {value!r:.60}")
    length = sum(len(name) + len(value) for name, value in metadata.items())
    if length > MAX_METADATA_LENGTH:
        raise ValueError(
            f"checkpoint: metadata must have at most {MAX_METADATA_LENGTH} characters, got {length}"
        )


def _check_state(state: Mapping[str, Tensor], network: Network) -> None:
    """Raises ValueError unless the state has exactly the tensors of the network, all of them finite."""
    expected = network.state_dict()
    for problem, names in (
        ("are missing", expected.keys() - state),
        ("are unknown", state.keys() - expected),
    ):
        if names:
            raise ValueError(f"checkpoint: {len(names)} tensors {problem}; the first is {min(names)!r:.60}")
    for name, tensor in state.items():
        shape, dtype = expected[name].shape, expected[name].dtype
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(
                f"checkpoint: {name} must be {dtype} {tuple(shape)}, got {tensor.dtype} {tuple(tensor.shape)}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"checkpoint: {name} must be finite, got NaN or infinity")
