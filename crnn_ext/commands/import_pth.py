"""`crnn-ext import`: imports weights that torch.save wrote."""

import argparse
from typing import Any

from crnn_ext._formatting import printable

from . import output
from .errors import catch_user_errors


def add_parser(commands: Any) -> None:
    """Adds the parser of the command to `crnn-ext`."""
    parser = commands.add_parser(
        "import",
        allow_abbrev=False,
        help="make a checkpoint from the weights in a .pth file",
        description="Writes a checkpoint with the weights of a file of torch.save: a state dict of CRNN, "
        'CRNN_v2 or CRNN_res, alone or in a dict as "state_dict", "model_state_dict" or "model". Only '
        "tensors are read; a file that could run code is refused. The options supply what the weights do not "
        "contain. The exit status is 2 if no checkpoint was written.",
    )
    parser.add_argument("weights", metavar="FILE", help="a file of torch.save, such as model.pth")
    parser.add_argument(
        "-o",
        "--output",
        metavar="CHECKPOINT",
        required=True,
        help=f".safetensors file to write, {output.REPLACED_WHEN_COMPLETE}",
    )
    parser.add_argument(
        "--charset",
        metavar="FILE",
        required=True,
        help="UTF-8 file of the characters in class order without blank, line breaks ignored",
    )
    parser.add_argument("--blank", type=int, default=0, metavar="CLASS", help="class of the blank (0)")
    parser.add_argument(
        "--network",
        choices=["CRNN", "CRNN_v2", "CRNN_res"],
        help="architecture (default: the one whose weights have the same names)",
    )
    parser.add_argument("--leaky-relu", action="store_true", help="the network uses LeakyReLU(0.2), not ReLU")
    parser.add_argument(
        "--mean",
        type=float,
        default=0.5,
        metavar="X",
        help="subtracted from pixel values, 0 (black) to 1 (white) (0.5)",
    )
    parser.add_argument("--std", type=float, default=0.5, metavar="X", help="divisor after that (0.5)")
    parser.add_argument(
        "--resize",
        default="keep",
        metavar="HOW",
        help="keep: the aspect ratio was kept; fixed:100: resized to 100 columns (keep)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""
    with catch_user_errors():
        from crnn_ext.ocr import save_checkpoint
        from crnn_ext.ocr.checkpoints.pth import load_pth
        from crnn_ext.ocr.images import parse_resize
        from crnn_ext.text import Charset

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
    architecture = checkpoint.architecture
    print(
        f"{printable(arguments.output)}: {architecture.name} with {architecture.nclass} classes, "
        f"nh {architecture.nh}, nc {architecture.nc}, width {architecture.width:g}"
    )
    return 0
