"""`crnn-ext check`: what stands in the way of training on a data set."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crnn_ext._formatting import pluralize, printable

from .data import LAYOUTS
from .messages import describe_error, fail

if TYPE_CHECKING:
    from crnn_ext.ocr.data.check import DataReport

# Names of lines that are shown for each kind of problem.
_NAMES = 10


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "check",
        allow_abbrev=False,
        help="check a data set before training",
        description="Tells what a data set is like and which of its lines cannot be trained on: labels that "
        "are no line of text, images that are missing or cannot be read, more characters than the network "
        "has frames, characters outside the charset. The exit status is 1 if there are any, 2 if there is "
        "nothing to check.",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help=LAYOUTS,
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="check for this network, its charset and its preprocessing"
    )
    parser.add_argument(
        "--charset", metavar="FILE", help="the characters, in a UTF-8 file; line breaks in it do not count"
    )
    parser.add_argument(
        "--network", choices=["CRNN", "CRNN_v2", "CRNN_res"], help="the network that counts frames (CRNN)"
    )
    parser.add_argument(
        "--resize",
        metavar="HOW",
        help="how images are made to fit, as for crnn-ext train: keep or fixed:100 (keep)",
    )
    parser.add_argument(
        "--images",
        action="store_true",
        help="decode every image, which finds damaged ones and those that are there twice; otherwise only "
        "their headers are read",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"name all lines with a problem, not only {_NAMES}"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images (all cores)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    if arguments.checkpoint and (arguments.charset or arguments.network or arguments.resize):
        return fail(
            "--checkpoint has a charset, a network and a way to resize, so --charset, --network and --resize "
            "are for others"
        )
    try:
        from crnn_ext.ocr import Architecture, Preprocessing, load_checkpoint
        from crnn_ext.ocr.data import open_lines
        from crnn_ext.ocr.data.check import check_lines
        from crnn_ext.ocr.images import parse_resize
        from crnn_ext.text import Charset
    except ImportError as error:
        return fail(str(error))
    try:
        charset: Charset | None
        if arguments.checkpoint:
            checkpoint = load_checkpoint(arguments.checkpoint)
            network, charset = checkpoint.network, checkpoint.charset
            preprocessing = checkpoint.preprocessing
        else:
            charset = None if arguments.charset is None else Charset.from_file(arguments.charset)
            preprocessing = Preprocessing(width=parse_resize(arguments.resize or "keep"))
            network = Architecture(arguments.network or "CRNN", nclass=2).build_on_meta()
        source = open_lines(arguments.data)
        report = check_lines(
            *(source, preprocessing, network.output_lengths, charset),
            decode=arguments.images,
            workers=arguments.workers,
        )
    except (OSError, ImportError, ValueError) as error:
        return fail(describe_error(error))
    print(printable(f"{source.path}: {pluralize(report.lines, 'line')}"))
    for line in _lines(report, type(network).__name__, None if arguments.all else _NAMES):
        print(printable(line))
    if report.lines == 0:
        return 2
    return 1 if report.issues else 0


def _lines(report: "DataReport", network: str, most_names: int | None) -> Iterator[str]:
    """The report, line by line."""
    from crnn_ext.ocr.data.check import describe_character

    yield f"{'':24}{'min':>8}{'median':>8}{'95 %':>8}{'max':>8}"
    for name, values in report.quantiles.items():
        unit = f" of {network}" if name == "frames" else ""
        yield f"{name + unit:24}" + "".join(f"{value:8}" for value in values)
    yield (
        f"{pluralize(report.characters.total(), 'character')}, {len(report.characters):,} different; "
        f"{pluralize(report.clusters.total(), 'grapheme cluster')}, {len(report.clusters):,} different"
    )
    composed = [cluster for cluster, _ in report.clusters.most_common() if len(cluster) > 1]
    if composed:
        most_frequent = " ".join(composed[:_NAMES])
        yield f"{len(composed)} of them are of several characters, the most frequent: {most_frequent}"
    if report.normalized_to_nfc:
        yield f"{pluralize(len(report.normalized_to_nfc), 'label')} not in NFC, brought there"
        yield from _some(report.normalized_to_nfc, most_names)
    if report.unknown:
        yield f"{pluralize(len(report.unknown), 'different character')} outside the charset"
        yield from _some(
            [
                f"{describe_character(character)}: {count}, first in {name}"
                for character, count, name in report.unknown
            ],
            most_names,
        )
    for kind, problems in report.issues.items():
        yield f"{kind}: {len(problems):,}"
        yield from _some([problem.name_and_detail for problem in problems], most_names)
    if not report.issues:
        yield "no problems"


def _some(lines: list[str], most: int | None) -> Iterator[str]:
    yield from (f"    {line}" for line in lines[:most])
    if most is not None and len(lines) > most:
        yield f"    and {len(lines) - most:,} more, which --all names"
