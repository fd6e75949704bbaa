"""Commands that share their work with the processes that torchrun has started."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from .messages import fail

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import ProcessGroup


def run_distributed(
    command: "Callable[[argparse.Namespace, ProcessGroup], int]", arguments: argparse.Namespace
) -> int:
    """Meets the other processes, runs the command and parts from them; returns its exit status."""
    try:
        from crnn_ext.ocr.system.distributed import ProcessGroup

        group = ProcessGroup.initialize()
    except (ImportError, ValueError) as error:
        return fail(str(error))
    try:
        return command(arguments, group)
    finally:
        group.destroy()
