"""`crnn-ext import`: a checkpoint from weights that torch.save wrote."""

import argparse
from typing import Any

from crnn_ext._formatting import printable

from . import output
from .messages import describe_error, fail


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to those of `crnn-ext`."""
    parser = commands.add_parser(
        "import",
        allow_abbrev=False,
        help="make a checkpoint of the weights in a .pth file",
        description="Writes a checkpoint with the weights of a file of torch.save: a state dict of CRNN, "
        'CRNN_v2 or CRNN_res, alone or in a dict as "state_dict", "model_state_dict" or "model". Only '
        "tensors are read; a file that could run code is refused. What the weights do not tell are the "
        "options. The exit status is 2 if no checkpoint was written.",
    )
    parser.add_argument("weights", metavar="FILE", help="a file of torch.save, such as model.pth")
    parser.add_argument(
        "-o",
        "--output",
        metavar="CHECKPOINT",
        required=True,
        help=f"the .safetensors file to write; {output.REPLACED_WHEN_COMPLETE}",
    )
    parser.add_argument(
        "--charset",
        metavar="FILE",
        required=True,
        help="the characters in the order of the network's classes, without the blank, in a UTF-8 file; line "
        "breaks in it do not count",
    )
    parser.add_argument("--blank", type=int, default=0, metavar="CLASS", help="the class of the blank (0)")
    parser.add_argument(
        "--network",
        choices=["CRNN", "CRNN_v2", "CRNN_res"],
        help="which network it is (the one whose weights have the same names)",
    )
    parser.add_argument(
        "--leaky-relu", action="store_true", help="it was trained with LeakyReLU(0.2) in place of ReLU"
    )
    parser.add_argument(
        "--mean",
        type=float,
        default=0.5,
        metavar="X",
        help="subtracted from the values of images, from 0 (black) to 1 (white) (0.5)",
    )
    parser.add_argument("--std", type=float, default=0.5, metavar="X", help="divides what is left (0.5)")
    parser.add_argument(
        "--resize",
        default="keep",
        metavar="HOW",
        help="how images were made to fit: keep, their aspect ratio, or fixed:100, to 100 columns (keep)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    try:
        from crnn_ext.ocr import save_checkpoint
        from crnn_ext.ocr.checkpoints.pth import load_pth
        from crnn_ext.ocr.images import parse_resize
        from crnn_ext.text import Charset
    except ImportError as error:
        return fail(str(error))
    try:
        output.check_writable(arguments.output, [arguments.weights, arguments.charset])
        checkpoint = load_pth(
            arguments.weights,
            Charset.from_file(arguments.charset, arguments.blank),
            network=arguments.network,
            leaky_relu=arguments.leaky_relu,
            mean=arguments.mean,
            std=arguments.std,
            width=parse_resize(arguments.resize),
        )
        save_checkpoint(arguments.output, checkpoint)
    except (OSError, ValueError) as error:
        return fail(describe_error(error))
    architecture = checkpoint.architecture
    print(
        f"{printable(arguments.output)}: {architecture.name} with {architecture.nclass} classes, "
        f"nh {architecture.nh}, nc {architecture.nc}, width {architecture.width:g}"
    )
    return 0
