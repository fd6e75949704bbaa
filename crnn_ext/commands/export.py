"""`crnn-ext export`: exports a checkpoint to ONNX or torch.export."""

import argparse
from pathlib import Path
from typing import Any

from crnn_ext._formatting import printable

from . import output
from . import parser as shared
from .errors import CommandError, catch_user_errors
from .messages import print_stderr

_FORMATS = ("onnx", "pt2")


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "export",
        parents=[shared.CHECKPOINT],
        allow_abbrev=False,
        help="write a checkpoint as ONNX or for torch.export.load",
        description="Writes the network of a checkpoint for batches of any size and images of any width, "
        "with its charset and preprocessing as metadata. Before that, the exported network, run by "
        "onnxruntime if it is ONNX, is compared with the original on batches of random images. The exit "
        "status is 1 if onnxruntime is not installed, so the file is not checked; it is 2 if no file was "
        "written.",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help=f"file to write, {output.REPLACED_WHEN_COMPLETE}",
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--onnx",
        dest="format",
        action="store_const",
        const="onnx",
        help="write ONNX (default for FILE.onnx)",
    )
    formats.add_argument(
        "--pt2",
        dest="format",
        action="store_const",
        const="pt2",
        help="write an archive of torch.export.save (default for FILE.pt2)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    file_format: Any = arguments.format or Path(arguments.output).suffix.lower().removeprefix(".")
    if file_format not in _FORMATS:
        raise CommandError(
            f"{arguments.output}: the suffix must be .onnx or .pt2 unless --onnx or --pt2 is given"
        )
    with catch_user_errors():
        from crnn_ext.ocr import load_checkpoint
        from crnn_ext.ocr.checkpoints.export import ExportError, export_checkpoint

        output.check_writable(arguments.output, [arguments.checkpoint])
        checkpoint = load_checkpoint(arguments.checkpoint)
        try:
            difference = export_checkpoint(arguments.output, checkpoint, file_format)
        except ExportError as error:
            raise CommandError(f"{arguments.checkpoint}: {error}") from error
    summary = f"{printable(arguments.output)}: {checkpoint.architecture.name}"
    if difference is None:
        print(summary)
        print_stderr(f"{arguments.output}: not checked: onnxruntime is not installed")
        return 1
    print(f"{summary}, logits within {difference:.1e} of torch's")
    return 0
