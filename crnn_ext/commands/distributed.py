"""Commands that share their work among the processes that torchrun started."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import catch_user_errors, exit_status

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import ProcessGroup


def run_distributed(
    command: "Callable[[argparse.Namespace, ProcessGroup], int]", arguments: argparse.Namespace
) -> int:
    """Runs the command with the process group of this process and returns its exit status."""
    with catch_user_errors():
        from crnn_ext.ocr.system.distributed import ProcessGroup

        group = ProcessGroup.initialize()
    try:
        # The messages of errors come before the group ends: torchrun may kill this process after it.
        return exit_status(lambda: command(arguments, group))
    finally:
        group.destroy()
