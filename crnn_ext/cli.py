"""The command `crnn-ext`.

Each of its commands is a function that adds the parser and one that runs the command and returns the exit
status: 0; 1 if some of the inputs could not be used; 2 if nothing could be done.
"""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

# Images that `read` holds in memory at a time: enough to find some of equal width, which are read together.
_IMAGES_AT_A_TIME = 256

# What would break a line, steer a terminal or be no character at all, such as a byte of a name not in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `crnn-ext` with the arguments, or those of the process, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="crnn-ext", description="Text recognition with CTC and CRNN networks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_read(commands)
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A text may have characters that the encoding of the output has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = arguments.run(arguments)
    except BrokenPipeError:
        # The program at the other end, such as head, wants no more. Python would say so again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _add_read(commands: Any) -> None:
    parser = commands.add_parser(
        "read",
        help="read the text in images",
        description="Reads the text in images that show one line of it, upright, as the network learnt to: "
        "for most, dark on light. Prints a line for each, in the order given: path, text and confidence, "
        "which is P(text | image), separated by tabs; control characters are written as in Python, a line "
        "break as \\n. Images that cannot be read are named on standard error, and the exit status is then "
        "1; it is 2 if the checkpoint cannot be used.",
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
        help="print JSON objects, one a line: path, text, confidence, and characters with the pixel columns "
        "[start, end) at which they were read",
    )
    parser.set_defaults(run=_read)


def _read(arguments: argparse.Namespace) -> int:
    try:
        from crnn_ext.ocr import CheckpointError, ImageError, Recognizer
    except ImportError as error:
        return _failure(str(error))
    try:
        recognizer = Recognizer.load(arguments.checkpoint)
    except CheckpointError as error:
        return _failure(str(error))

    status = 0
    for first in range(0, len(arguments.images), _IMAGES_AT_A_TIME):
        paths, images = [], []
        for path in arguments.images[first : first + _IMAGES_AT_A_TIME]:
            try:
                images.append(recognizer.prepare(path))
                paths.append(path)
            except ImageError as error:
                _complain(f"{path}: {error}")
                status = 1
        try:
            readings = recognizer.read(images)
        except ValueError as error:
            return _failure(f"{arguments.checkpoint}: {error}")
        for path, reading in zip(paths, readings, strict=True):
            if arguments.json:
                characters = [character._asdict() for character in reading.characters]
                line = json.dumps({"path": path, **reading._asdict(), "characters": characters})
            else:
                line = f"{_printable(path)}\t{_printable(reading.text)}\t{reading.confidence:.4f}"
            print(line, flush=True)
    return status


def _failure(message: str) -> int:
    _complain(message)
    return 2


def _complain(message: str) -> None:
    print(f"crnn-ext: {_printable(message)}", file=sys.stderr)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
