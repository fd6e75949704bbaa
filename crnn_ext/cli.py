"""The command `crnn-ext`, also `python -m crnn_ext`."""

import argparse
import io
import sys
from collections.abc import Sequence

from crnn_ext import __version__
from crnn_ext.commands import check, evaluate, export, import_pth, info, pack, plot, read, train
from crnn_ext.commands.errors import exit_status
from crnn_ext.commands.messages import one_line_warnings
from crnn_ext.commands.parser import CommandParser

_COMMANDS = (train, read, evaluate, plot, check, pack, info, export, import_pth)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of `crnn-ext` with all commands."""
    parser = argparse.ArgumentParser(
        prog="crnn-ext", description="Text recognition with CTC and CRNN networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"crnn_ext {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=CommandParser)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `crnn-ext` with the arguments, by default those of the process; returns the exit status."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help(sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The encoding of the output may lack characters of a text.
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    with one_line_warnings():
        status: int = arguments.run(arguments)
    if sys.stdout is not None:  # None if a shell has closed it
        sys.stdout.flush()
    return status
