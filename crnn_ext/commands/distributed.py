"""Commands that share their work with the processes that torchrun has started."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from .messages import failure

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import World


def run_together(command: "Callable[[argparse.Namespace, World], int]", arguments: argparse.Namespace) -> int:
    """Meets the other processes, runs the command and parts from them; returns its exit status."""
    try:
        from crnn_ext.ocr.system.distributed import World

        world = World.join()
    except (ImportError, ValueError) as error:
        return failure(str(error))
    try:
        return command(arguments, world)
    finally:
        world.leave()
