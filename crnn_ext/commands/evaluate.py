"""`crnn-ext evaluate`: how well a checkpoint reads lines whose text is known."""

import argparse
from typing import TYPE_CHECKING, Any

from . import decoding, device, evaluation_report
from .distributed import run_distributed
from .messages import describe_error, fail, print_stderr

if TYPE_CHECKING:
    from crnn_ext.ocr.evaluation.metrics import Unit
    from crnn_ext.ocr.system.distributed import ProcessGroup


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "evaluate",
        allow_abbrev=False,
        help="measure how well lines are read whose text is known",
        description="Reads the lines of a data set and compares what was read with their texts: error rates "
        "of characters (CER) and words (WER) and the share of right lines, with 95 % intervals, by length "
        "and by doubled letters; frequent confusions; how far confidences can be believed; the worst lines. "
        "Items of the data set that are no lines or have no image that can be read are named on standard "
        "error and are in no number, and the exit status is then 1; it is 2 if nothing could be read. Under "
        "torchrun each process reads a share, and the first one prints.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    parser.add_argument("data", metavar="DATA", help="a data set, as for crnn-ext check")
    parser.add_argument("--json", action="store_true", help="print all numbers as one JSON object")
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="name at most N lines with the most errors (10)"
    )
    parser.add_argument(
        "--code-points",
        action="store_true",
        help="count code points as characters, as most other tools do, and not grapheme clusters",
    )
    device.add_option(parser)
    decoding.add_options(parser)
    parser.set_defaults(run=run, nbest=None)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    return run_distributed(_evaluate, arguments)


def _evaluate(arguments: argparse.Namespace, group: "ProcessGroup") -> int:
    from crnn_ext.ocr import Recognizer, evaluate
    from crnn_ext.ocr.data import open_lines
    from crnn_ext.ocr.system.tf32 import tf32_allowed

    if arguments.worst < 0:
        return fail(f"--worst must be at least 0, and it is {arguments.worst}")
    try:
        recognizer = Recognizer.load(arguments.checkpoint, device=device.select(arguments.device, group))
        recognizer.decoding = decoding.from_options(arguments, recognizer.charset)
        lines = open_lines(arguments.data)
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        return fail(describe_error(error))
    if group.rank == 0:
        for problem in lines.skipped:
            print_stderr(f"{arguments.data}: {problem}")
    unit: Unit = "code points" if arguments.code_points else "graphemes"
    try:
        with tf32_allowed(False):
            evaluation = evaluate(recognizer, lines, unit=unit, progress=True, group=group)
    except ImportError as error:
        return fail(str(error))
    except ValueError as error:
        return fail(f"{arguments.checkpoint}: {error}")

    if group.rank == 0:
        for line in evaluation.unreadable:
            print_stderr(f"{arguments.data}: {line.name}: {line.reason}")
        if evaluation.lines:
            as_report = evaluation_report.as_json if arguments.json else evaluation_report.as_text
            print(as_report(evaluation, arguments.worst), flush=True)
        else:
            print_stderr(f"{arguments.data}: it has no line that can be read")
    # Nobody leaves before the report is there: torchrun ends all processes after the first that fails.
    group.all_gather(None)
    if not evaluation.lines:
        return 2
    return 1 if lines.skipped or evaluation.unreadable else 0
