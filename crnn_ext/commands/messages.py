"""What commands say, each in one line."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from crnn_ext._formatting import pluralize, printable


def fail(message: str) -> int:
    """Says that nothing could be done, and returns the exit status for it."""
    print_stderr(message)
    return 2


def print_stderr(message: str) -> None:
    """Says what is wrong on standard error."""
    with suppress(OSError):  # where that is full, nobody can be told
        print(f"crnn-ext: {printable(message)}", file=sys.stderr)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Says warnings of crnn_ext, such as of checkpoints, as everything else that commands say.

    Pillow's, of damage that leaves the pixels of an image whole, are not said.
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


def describe_error(error: Exception) -> str:
    """What an error says; of one of the system the name of the file and the reason."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, RuntimeError) and not type(error).__module__.startswith("crnn_ext."):
        return str(error).partition("\n")[0]  # torch goes on about how to debug it
    return str(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short, a GPU's or another; torch has a type of error for the first alone."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def external_cause(error: Exception) -> str | None:
    """What an error of torch says that has its cause outside of this program; None for any other."""
    import torch

    first_line = str(error).partition("\n")[0]
    if is_out_of_memory(error):
        return "memory is short" + (f": {first_line}" if first_line else "")
    # A process that is not there, or has gone, as loading lines may where memory is short.
    if (
        isinstance(error, torch.distributed.DistError)
        or "gloo" in first_line
        or "DataLoader worker" in first_line
    ):
        return first_line
    return None


def throughput(number: int, noun: str, seconds: float) -> str:
    """Such as "143 images/s, 10,000 images in 70.1 s"."""
    rate = number / max(seconds, 1e-9)
    return f"{rate:,.{0 if rate >= 10 else 1}f} {noun}s/s, {pluralize(number, noun)} in {seconds:.1f} s"
