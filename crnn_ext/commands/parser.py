"""The parser of a command."""

import argparse
from collections.abc import Callable
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """One that may get its options when its command is chosen: finding out which there are may take long.

    Attributes:
        add_options: adds them; raises ImportError if they cannot be known here.
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
