"""`crnn-ext check`: checks a data set before training."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crnn_ext._formatting import pluralize, printable

from . import parser as shared
from .errors import CommandError, catch_user_errors

if TYPE_CHECKING:
    from crnn_ext.ocr.data.check import DataReport

# Lines that are named for each kind of issue.
_MAX_NAMES = 10


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "check",
        parents=[shared.DATA, shared.WORKERS],
        allow_abbrev=False,
        help="check a data set before training",
        description="Prints statistics of a data set and the lines that cannot be trained on: invalid "
        "labels, missing or unreadable images, too few frames for the label, characters outside the "
        "charset. The exit status is 1 if there are any, 2 if there is nothing to check.",
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="check for the network of this checkpoint")
    parser.add_argument("--charset", metavar="FILE", help="UTF-8 file of the characters, line breaks ignored")
    parser.add_argument(
        "--network", choices=["CRNN", "CRNN_v2", "CRNN_res"], help="network that counts frames (CRNN)"
    )
    parser.add_argument("--resize", metavar="HOW", help="keep or fixed:100, as for crnn-ext train (keep)")
    parser.add_argument(
        "--images",
        action="store_true",
        help="decode all images, to find damaged and duplicate ones",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"name all lines with an issue, not only {_MAX_NAMES} of each kind"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    if arguments.checkpoint and (arguments.charset or arguments.network or arguments.resize):
        raise CommandError("--checkpoint cannot be combined with --charset, --network or --resize")
    with catch_user_errors():
        from crnn_ext.ocr import Architecture, Preprocessing, load_checkpoint
        from crnn_ext.ocr.data import open_lines
        from crnn_ext.ocr.data.check import check_lines
        from crnn_ext.ocr.images import parse_resize
        from crnn_ext.text import Charset

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
            source,
            preprocessing,
            network.output_lengths,
            charset,
            decode=arguments.images,
            workers=arguments.workers,
        )
    print(printable(f"{source.path}: {pluralize(report.lines, 'line')}"))
    for line in _report_lines(report, type(network).__name__, None if arguments.all else _MAX_NAMES):
        print(printable(line))
    if report.lines == 0:
        return 2
    return 1 if report.issues else 0


def _report_lines(report: "DataReport", network: str, max_names: int | None) -> Iterator[str]:
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
        most_frequent = " ".join(composed[:_MAX_NAMES])
        different = pluralize(len(composed), "different cluster")
        yield f"{different} of several characters, most frequent first: {most_frequent}"
    if report.normalized_to_nfc:
        yield f"{pluralize(len(report.normalized_to_nfc), 'label')} not in NFC, normalized"
        yield from _first(report.normalized_to_nfc, max_names)
    if report.unknown:
        yield f"{pluralize(len(report.unknown), 'different character')} outside the charset"
        yield from _first(
            [
                f"{describe_character(character)}: {count}, first in {name}"
                for character, count, name in report.unknown
            ],
            max_names,
        )
    for kind, issues in report.issues.items():
        yield f"{kind}: {len(issues):,}"
        yield from _first([issue.name_and_detail for issue in issues], max_names)
    if not report.issues:
        yield "no problems"


def _first(lines: list[str], max_lines: int | None) -> Iterator[str]:
    yield from (f"    {line}" for line in lines[:max_lines])
    if max_lines is not None and len(lines) > max_lines:
        yield f"    and {len(lines) - max_lines:,} more (--all names them)"
