"""`crnn-ext evaluate`: measures error rates on lines with known text."""

import argparse
from typing import TYPE_CHECKING, Any

from crnn_ext._arguments import check_int

from . import decoding, device, evaluation_report
from . import parser as shared
from .distributed import run_distributed
from .errors import CommandError, catch_user_errors
from .messages import print_stderr

if TYPE_CHECKING:
    from crnn_ext.ocr.evaluation.metrics import Unit
    from crnn_ext.ocr.system.distributed import ProcessGroup


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "evaluate",
        parents=[shared.CHECKPOINT, shared.DATA, shared.DEVICE],
        allow_abbrev=False,
        help="measure error rates on lines with known text",
        description="Reads the lines of a data set and compares the results with the labels: character and "
        "word error rates (CER, WER) and line accuracy with 95 % intervals, also by length and by doubled "
        "letters; frequent confusions; calibration of the confidences; the worst lines. Invalid items and "
        "unreadable images are named on standard error and excluded from all numbers; the exit status is "
        "then 1. It is 2 if nothing could be read. Under torchrun the processes share the lines, and rank 0 "
        "prints.",
    )
    parser.add_argument("--json", action="store_true", help="print all numbers as one JSON object")
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="print at most N lines with the most errors (10)"
    )
    parser.add_argument(
        "--code-points",
        action="store_true",
        help="count code points, as most other tools do, not grapheme clusters",
    )
    decoding.add_options(parser)
    parser.set_defaults(run=run, nbest=None)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    return run_distributed(_evaluate, arguments)


def _evaluate(arguments: argparse.Namespace, group: "ProcessGroup") -> int:
    with catch_user_errors(RuntimeError):
        check_int("--worst", arguments.worst, 0)
        from crnn_ext.ocr import Recognizer, evaluate
        from crnn_ext.ocr.data import open_lines
        from crnn_ext.ocr.system.tf32 import tf32_allowed

        recognizer = Recognizer.load(arguments.checkpoint, device=device.select(arguments.device, group))
        recognizer.decoding = decoding.from_options(arguments, recognizer.charset)
        lines = open_lines(arguments.data)
    if group.rank == 0:
        for issue in lines.skipped:
            print_stderr(f"{arguments.data}: {issue}")
    unit: Unit = "code points" if arguments.code_points else "graphemes"
    with catch_user_errors(), tf32_allowed(False):
        try:
            evaluation = evaluate(recognizer, lines, unit=unit, progress=True, group=group)
        except ValueError as error:
            raise CommandError(f"{arguments.checkpoint}: {error}") from error

    if group.rank == 0:
        for line in evaluation.unreadable:
            print_stderr(f"{arguments.data}: {line.name}: {line.reason}")
        if evaluation.lines:
            as_report = evaluation_report.as_json if arguments.json else evaluation_report.as_text
            print(as_report(evaluation, arguments.worst), flush=True)
        else:
            print_stderr(f"{arguments.data}: no readable line")
    # All wait until rank 0 has printed: torchrun kills the others when a process fails.
    group.all_gather(None)
    if not evaluation.lines:
        return 2
    return 1 if lines.skipped or evaluation.unreadable else 0
