"""Messages of commands on standard error, one line each."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from crnn_ext._formatting import pluralize, printable


def print_stderr(message: str) -> None:
    """Prints a message to standard error."""
    with suppress(OSError):  # such as a full disk: there is no other place for the message
        print(f"crnn-ext: {printable(message)}", file=sys.stderr)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Prints warnings of crnn_ext, such as those about checkpoints, like other messages.

    Warnings of Pillow are suppressed: they concern damage that leaves the pixels of an image intact.
    """
    show_others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category.__module__.startswith("crnn_ext."):
            print_stderr(str(message))
        else:
            show_others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def throughput(number: int, noun: str, seconds: float) -> str:
    """Such as "143 images/s, 10,000 images in 70.1 s"."""
    rate = number / max(seconds, 1e-9)
    return f"{rate:,.{0 if rate >= 10 else 1}f} {noun}s/s, {pluralize(number, noun)} in {seconds:.1f} s"
