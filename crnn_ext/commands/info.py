"""`crnn-ext info`: describes a checkpoint."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crnn_ext._formatting import printable

from . import parser as shared
from .errors import catch_user_errors

if TYPE_CHECKING:
    from crnn_ext.ocr import Checkpoint

# Columns after preprocessing for which the frames are printed.
_WIDTHS = (32, 100, 200, 400, 800, 1600)


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "info",
        parents=[shared.CHECKPOINT],
        allow_abbrev=False,
        help="describe a checkpoint",
        description="Prints the network of a checkpoint, its charset and preprocessing, the frames for "
        "images of several widths, the metadata, and the version that wrote it. Safe on untrusted files. "
        "The exit status is 2 if the file cannot be used.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    with catch_user_errors():
        from crnn_ext.ocr import load_checkpoint

        checkpoint = load_checkpoint(arguments.checkpoint)
    facts = _facts(checkpoint)
    if arguments.json:
        print(json.dumps(facts))
    else:
        for name, value in _lines(facts):
            print(f"{printable(name):15} {printable(value)}".rstrip())
    return 0


def _facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """The object that `--json` prints."""
    from crnn_ext.ocr.checkpoints.checkpoint import FORMAT_VERSION

    network, charset = checkpoint.network, checkpoint.charset
    frames = network.output_lengths(list(_WIDTHS)).tolist()
    return {
        "format": FORMAT_VERSION,
        "version": checkpoint.version,
        "architecture": checkpoint.architecture.to_dict(),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "charset": charset.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "frames": dict(zip(map(str, _WIDTHS), frames, strict=True)),
        "metadata": dict(checkpoint.metadata),
    }


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts as pairs of name and value."""
    settings = dict(facts["architecture"])
    characters, blank = facts["charset"]["characters"], facts["charset"]["blank"]
    yield "written by", f"crnn_ext {facts['version'] or 'of unknown version'}, format {facts['format']}"
    yield "network", f"{settings.pop('name')}, {facts['parameters']:,} parameters: {_join_settings(settings)}"
    yield "charset", f"{len(characters)} characters, the blank is class {blank}"
    yield "", characters
    yield "preprocessing", _join_settings(facts["preprocessing"])
    yield "columns", "".join(f"{columns:>6}" for columns in facts["frames"])
    yield "frames", "".join(f"{frames:6}" for frames in facts["frames"].values())
    yield from facts["metadata"].items()


def _join_settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
