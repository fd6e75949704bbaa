"""The command `crnn-ext`, also as `python -m crnn_ext`."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence

from crnn_ext import __version__
from crnn_ext.commands import check, evaluate, export, import_pth, info, pack, plot, read, train
from crnn_ext.commands.messages import describe_error, external_cause, fail, one_line_warnings
from crnn_ext.commands.parser import CommandParser

_COMMANDS = (train, read, evaluate, plot, check, pack, info, export, import_pth)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `crnn-ext` with the arguments, or those of the process, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="crnn-ext", description="Text recognition with CTC and CRNN networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"crnn_ext {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=CommandParser)
    for command in _COMMANDS:
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help(sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A text may have characters that the encoding of the output has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with one_line_warnings():
            status: int = arguments.run(arguments)
        if sys.stdout is not None:  # as where a shell has closed it
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The program at the other end, such as head, wants no more.
        _give_up_output()
        return 1
    except OSError as error:
        if error.filename is not None:
            return fail(describe_error(error))
        _give_up_output()
        return fail(f"standard output: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        cause = external_cause(error)
        if cause is None:
            raise
        return fail(cause)
    return status


def _give_up_output() -> None:
    """Lets what is still to be written go nowhere. Python would try, and complain, again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
