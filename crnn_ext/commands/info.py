"""`crnn-ext info`: what a checkpoint holds."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crnn_ext._formatting import printable

from .messages import fail

if TYPE_CHECKING:
    from crnn_ext.ocr import Checkpoint

# Columns of images, after preprocessing, whose frames are told.
_WIDTHS = (32, 100, 200, 400, 800, 1600)


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "info",
        allow_abbrev=False,
        help="tell what a checkpoint holds",
        description="Tells which network a checkpoint holds, its charset and its preprocessing, how many "
        "frames it makes of an image, what was noted about it, and which version wrote it. The file need not "
        "be trusted. The exit status is 2 if it cannot be used.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    try:
        from crnn_ext.ocr import CheckpointError, load_checkpoint
    except ImportError as error:
        return fail(str(error))
    try:
        checkpoint = load_checkpoint(arguments.checkpoint)
    except CheckpointError as error:
        return fail(str(error))
    facts = _facts(checkpoint)
    if arguments.json:
        print(json.dumps(facts))
    else:
        for name, value in _lines(facts):
            print(f"{printable(name):15} {printable(value)}".rstrip())
    return 0


def _facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """What `--json` prints."""
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
    """The facts, each with its name."""
    settings = dict(facts["architecture"])
    characters, blank = facts["charset"]["characters"], facts["charset"]["blank"]
    yield "written by", f"crnn_ext {facts['version'] or 'of unknown version'}, format {facts['format']}"
    yield "network", f"{settings.pop('name')}, {facts['parameters']:,} parameters: {_listed(settings)}"
    yield "charset", f"{len(characters)} characters, the blank is class {blank}"
    yield "", characters
    yield "preprocessing", _listed(facts["preprocessing"])
    yield "columns", "".join(f"{columns:>6}" for columns in facts["frames"])
    yield "frames", "".join(f"{frames:6}" for frames in facts["frames"].values())
    yield from facts["metadata"].items()


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
