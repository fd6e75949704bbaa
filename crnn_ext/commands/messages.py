"""What commands say, each in one line."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from crnn_ext._printable import counted, printable


def failure(message: str) -> int:
    """Says that nothing could be done, and returns the exit status for it."""
    complain(message)
    return 2


def complain(message: str) -> None:
    """Says what is wrong on standard error."""
    print(f"crnn-ext: {printable(message)}", file=sys.stderr)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Says warnings of crnn_ext, such as of checkpoints, as everything else that commands say."""
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
            complain(str(message))
        else:
            show_others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def explained(error: Exception) -> str:
    """What an error says; of one of the system the name of the file and the reason."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def throughput(number: int, noun: str, seconds: float) -> str:
    """Such as "143 images/s, 10,000 images in 70.1 s"."""
    rate = number / max(seconds, 1e-9)
    return f"{rate:,.{0 if rate >= 10 else 1}f} {noun}s/s, {counted(number, noun)} in {seconds:.1f} s"
