"""What commands say, each in one line."""

import sys

from crnn_ext._printable import printable


def failure(message: str) -> int:
    """Says that nothing could be done, and returns the exit status for it."""
    complain(message)
    return 2


def complain(message: str) -> None:
    """Says what is wrong on standard error."""
    print(f"crnn-ext: {printable(message)}", file=sys.stderr)
