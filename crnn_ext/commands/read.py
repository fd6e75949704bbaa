"""`crnn-ext read`: the text in images."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from crnn_ext._printable import printable

from . import decoding
from .messages import complain, failure

if TYPE_CHECKING:
    from crnn_ext.ocr import Reading

# Images that `read` holds in memory at a time: enough to find some of equal width, which are read together.
_IMAGES_AT_A_TIME = 256


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "read",
        allow_abbrev=False,
        help="read the text in images",
        description="Reads the text in images that show one line of it, upright, as the network learnt to: "
        "for most, dark on light. Prints a line for each, in the order given: path, text and confidence, "
        "which is P(text | image), separated by tabs; control characters are written as in Python, a line "
        "break as \\n. Images that cannot be read, or in which the search finds no text of the lexicon, are "
        "named on standard error, and the exit status is then 1; it is 2 if the checkpoint cannot be used.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a PNG, JPEG, WebP, TIFF, BMP or GIF file of up to 89 million pixels",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON objects, one a line: path, text, confidence, characters with the pixel columns "
        "[start, end) at which they were read, and alternatives, with text and confidence",
    )
    beam = decoding.add_options(parser)
    beam.add_argument(
        "--nbest",
        type=int,
        metavar="K",
        help="texts for each image (1): text and confidence of each in a line",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    try:
        from crnn_ext.ocr import CheckpointError, ImageError, Recognizer
    except ImportError as error:
        return failure(str(error))
    try:
        recognizer = Recognizer.load(arguments.checkpoint)
        recognizer.decoding = decoding.chosen(arguments, recognizer.charset)
    except OSError as error:
        return failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (CheckpointError, ValueError) as error:
        return failure(str(error))

    status = 0
    for first in range(0, len(arguments.images), _IMAGES_AT_A_TIME):
        paths, images = [], []
        for path in arguments.images[first : first + _IMAGES_AT_A_TIME]:
            try:
                images.append(recognizer.prepare(path))
                paths.append(path)
            except ImageError as error:
                complain(f"{path}: {error}")
                status = 1
        try:
            readings = recognizer.read(images)
        except ValueError as error:
            return failure(f"{arguments.checkpoint}: {error}")
        for path, reading in zip(paths, readings, strict=True):
            if arguments.lexicon is not None and not reading.text and reading.confidence == 0:
                complain(f"{path}: the search has found no text of the lexicon; a larger --beam may")
                status = 1
            print(_json_line(path, reading) if arguments.json else _line(path, reading), flush=True)
    return status


def _line(path: str, reading: "Reading") -> str:
    texts = [(reading.text, reading.confidence), *reading.alternatives]
    columns = (f"{printable(text)}\t{confidence:.4f}" for text, confidence in texts)
    return "\t".join([printable(path), *columns])


def _json_line(path: str, reading: "Reading") -> str:
    lists = {
        "characters": [character._asdict() for character in reading.characters],
        "alternatives": [alternative._asdict() for alternative in reading.alternatives],
    }
    return json.dumps({"path": path, **reading._asdict(), **lists})
