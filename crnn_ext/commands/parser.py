"""The parser of a command, and the arguments that several commands share."""

import argparse
from collections.abc import Callable
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """A parser that can add its options lazily, when its command is chosen.

    Attributes:
        add_options: adds the options; raises ImportError if a package that defines them is missing.
    """

    add_options: Callable[["CommandParser"], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse."""
        if self.add_options is not None:
            add_options, self.add_options = self.add_options, None
            try:
                add_options(self)
            except ImportError as error:
                self.exit(2, f"crnn-ext: {error}\n")
        return super().parse_known_args(args, namespace)


DATA_HELP = "LMDB, labels.txt or gt.txt, x.png with x.gt.txt, or docTR labels.json"


def _parent(name: str, **options: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(name, **options)
    return parser


def _images() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group(
        "images",
        "PNG, JPEG, WebP, TIFF, BMP or GIF files of up to 89 million pixels. A folder stands for all images "
        "below it, a pattern for the files that match; both are sorted. @FILE stands for the files that "
        "FILE names, one a line, and - for those that standard input names. An existing file takes "
        "precedence over a pattern or @FILE of the same name.",
    )
    group.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a file, a folder, a pattern such as 'pages/**/*.png', @FILE or -",
    )
    return parser


# For `parents=` of argparse.
CHECKPOINT = _parent("checkpoint", metavar="CHECKPOINT", help="a .safetensors file written by crnn_ext")
DATA = _parent("data", metavar="DATA", help=f"data set: {DATA_HELP}")
IMAGES = _images()
DEVICE = _parent(
    "--device",
    metavar="NAME",
    help="cpu, cuda (a GPU per process, or shared) or cuda:N (default: cuda if built and found)",
)
WORKERS = _parent("--workers", type=int, metavar="N", help="processes that read images (all cores)")
