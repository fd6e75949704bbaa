"""The mapping from errors to messages and exit statuses, for all commands."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .messages import print_stderr


class CommandError(Exception):
    """Ends a command with this message and exit status 2."""


@contextmanager
def catch_user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turns errors caused by the user's files, options or installation into `CommandError`.

    Args:
        more: further types of errors to report. All others pass, to `exit_status` for example.
    """
    expected: tuple[type[Exception], ...] = (ImportError, OSError, ValueError, *more)
    try:
        yield
    except expected as error:
        raise CommandError(describe_error(error)) from error


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit status. Errors of this program itself are raised."""
    try:
        return command()
    except CommandError as error:
        print_stderr(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of standard output, such as head, has closed it.
        _discard_stdout()
        return 1
    except OSError as error:
        if error.filename is not None:
            print_stderr(describe_error(error))
        else:
            _discard_stdout()
            print_stderr(f"standard output: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        cause = external_cause(error)
        if cause is None:
            raise
        print_stderr(cause)
    return 2


def describe_error(error: Exception) -> str:
    """The message of an error; of an `OSError` the file name and the reason."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, RuntimeError) and not type(error).__module__.startswith("crnn_ext."):
        return str(error).partition("\n")[0]  # torch adds debugging hints on further lines
    return str(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether CPU or GPU memory ran out. torch has an error type for GPU memory only."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def external_cause(error: Exception) -> str | None:
    """The message of an error of torch whose cause lies outside of this program; None for other errors."""
    import torch

    first_line = str(error).partition("\n")[0]
    if is_out_of_memory(error):
        return "out of memory" + (f": {first_line}" if first_line else "")
    # A process that is missing or has died, as data loading workers do when memory runs out.
    if (
        isinstance(error, torch.distributed.DistError)
        or "gloo" in first_line
        or "DataLoader worker" in first_line
    ):
        return first_line
    return None


def _discard_stdout() -> None:
    """Redirects standard output to /dev/null, so Python does not fail again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
