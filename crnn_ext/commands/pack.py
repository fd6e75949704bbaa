"""`crnn-ext pack`: data sets into one LMDB database."""

import argparse
from typing import Any

from crnn_ext._formatting import pluralize, printable

from .data import LAYOUTS
from .messages import fail, print_stderr


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "pack",
        allow_abbrev=False,
        help="pack data sets into one LMDB database",
        description="Writes the lines of data sets, one after the other, to a new LMDB database with keys "
        "num-samples, image-000000001 and label-000000001. Every image is decoded to see whether it can be. "
        "Each item that is skipped is named on standard error with the reason, and the exit status is then "
        "1; it is 2 if nothing was written.",
    )
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help=LAYOUTS,
    )
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the folder to make")
    parser.add_argument(
        "--encode",
        choices=["png", "jpeg"],
        help="encode the images anew, upright and in 8-bit grey or RGB; otherwise the files stay as they are",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode images (all cores)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    try:
        from crnn_ext.ocr.data import open_lines
        from crnn_ext.ocr.data.pack import pack_lines

        sources = [open_lines(path) for path in arguments.sources]
        packed = pack_lines(sources, arguments.output, arguments.encode, arguments.workers)
    except (ImportError, ValueError) as error:
        return fail(str(error))
    for source, problem in packed.skipped:
        print_stderr(f"{source.path}: {problem}")
    if packed.lines == 0:
        return fail(f"{arguments.output}: not written, as no line can be used")
    written, skipped = pluralize(packed.lines, "line"), pluralize(len(packed.skipped), "item")
    print(f"{printable(arguments.output)}: {written}, {skipped} skipped")
    return 1 if packed.skipped else 0
