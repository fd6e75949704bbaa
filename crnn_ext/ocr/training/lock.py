"""A lock on the folder of a run: one run at a time writes to it."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .loop import TrainingError

LOCK_FILE = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder against other training processes until the block or this process ends.

    Raises:
        TrainingError: another process holds the lock.
        OSError: the file `lock` cannot be written.
    """
    with open(folder / LOCK_FILE, "a") as file:
        try:
            # A record lock, because forked workers do not inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise TrainingError(f"{folder}: another process is training there") from None
            # Some network file systems have no locks.
        yield
