"""`crnn-ext export`: a checkpoint for other programs."""

import argparse
from pathlib import Path
from typing import Any

from crnn_ext._formatting import printable

from . import output
from .messages import describe_error, fail, print_stderr

_FORMATS = ("onnx", "pt2")


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "export",
        allow_abbrev=False,
        help="write a checkpoint as ONNX or for torch.export.load",
        description="Writes the network of a checkpoint, for batches of any size and images of any width, "
        "with its charset and preprocessing as metadata. Before the file is written, its logits are compared "
        "with torch's on batches of random images, an ONNX file's by onnxruntime. The exit status is 1 if "
        "onnxruntime is not installed, so that the file is not checked; it is 2 if none was written.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help=f"the file to write; {output.REPLACED_WHEN_COMPLETE}",
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--onnx",
        dest="form",
        action="store_const",
        const="onnx",
        help="write ONNX; the default for FILE.onnx",
    )
    formats.add_argument(
        "--pt2",
        dest="form",
        action="store_const",
        const="pt2",
        help="write an archive of torch.export.save; the default for FILE.pt2",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    form: Any = arguments.form or Path(arguments.output).suffix.lower().removeprefix(".")
    if form not in _FORMATS:
        return fail(f"{arguments.output}: a file must end in .onnx or .pt2, or --onnx or --pt2 be given")
    try:
        from crnn_ext.ocr import load_checkpoint
        from crnn_ext.ocr.checkpoints.export import ExportError, export_checkpoint
    except ImportError as error:
        return fail(str(error))
    try:
        output.check_writable(arguments.output, [arguments.checkpoint])
        checkpoint = load_checkpoint(arguments.checkpoint)
        difference = export_checkpoint(arguments.output, checkpoint, form)
    except (OSError, ImportError, ValueError) as error:
        return fail(describe_error(error))
    except ExportError as error:
        return fail(f"{arguments.checkpoint}: {error}")
    name = f"{printable(arguments.output)}: {checkpoint.architecture.name}"
    if difference is None:
        print(name)
        print_stderr(f"{arguments.output}: not checked, as onnxruntime is not installed")
        return 1
    print(f"{name}, logits within {difference:.1e} of torch's")
    return 0
