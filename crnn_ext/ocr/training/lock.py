"""One run at a time writes to a folder."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .loop import TrainingError

LOCK_FILE = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in the folder until the block ends, or this process does.

    Raises:
        TrainingError: one is at it.
        OSError: the file `lock` cannot be written.
    """
    with open(folder / LOCK_FILE, "a") as file:
        try:
            # A record lock: workers that this process forks do not inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise TrainingError(f"{folder}: another process is training there") from None
            # Not every file system of a network has locks.
        yield
