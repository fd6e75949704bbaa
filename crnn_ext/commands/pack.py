"""`crnn-ext pack`: packs data sets into one LMDB database."""

import argparse
from typing import Any

from crnn_ext._formatting import pluralize, printable

from . import parser as shared
from .errors import CommandError, catch_user_errors
from .messages import print_stderr


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "pack",
        parents=[shared.WORKERS],
        allow_abbrev=False,
        help="pack data sets into one LMDB database",
        description="Writes the lines of data sets, one after the other, to a new LMDB database with the "
        "keys num-samples, image-000000001 and label-000000001. Every image is decoded to check that it can "
        "be. Skipped items are named on standard error with the reason, and the exit status is then 1; it "
        "is 2 if nothing was written.",
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help=f"data set: {shared.DATA_HELP}")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="folder to create")
    parser.add_argument(
        "--encode",
        choices=["png", "jpeg"],
        help="re-encode the images, upright, 8-bit gray or RGB (default: copy the files)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    with catch_user_errors():
        from crnn_ext.ocr.data import open_lines
        from crnn_ext.ocr.data.pack import pack_lines

        sources = [open_lines(path) for path in arguments.sources]
        packed = pack_lines(sources, arguments.output, arguments.encode, arguments.workers)
    for source, issue in packed.skipped:
        print_stderr(f"{source.path}: {issue}")
    if packed.lines == 0:
        raise CommandError(f"{arguments.output}: not written: no usable line")
    written, skipped = pluralize(packed.lines, "line"), pluralize(len(packed.skipped), "item")
    print(f"{printable(arguments.output)}: {written}, {skipped} skipped")
    return 1 if packed.skipped else 0
