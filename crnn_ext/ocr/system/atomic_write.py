"""Files that are there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = ".crnn_ext-{}.tmp"


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file. One of the same name is replaced when the new one is on the disk, not before.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    with atomic_write(path) as file:
        file.write(content)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of one of that name when the block ends without an error.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    # A name that nobody else has, beside the file, as only there it can be renamed at once.
    unfinished = Path(path).with_name(_UNFINISHED.format(secrets.token_hex(4)))
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _keep_name(unfinished.parent)
    except OSError as error:
        if error.filename in (None, str(unfinished)):
            # The reader of the message knows the file by its own name.
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def add_filename_to_errors(path: str | Path) -> Iterator[None]:
    """Puts the file into errors of the system, which does not say which one it could not read or write."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def remove_temporary_files(folder: Path) -> None:
    """Removes what killed processes have left in a folder to which no other process writes."""
    for path in folder.glob(_UNFINISHED.format("*")):
        path.unlink()


def _keep_name(folder: Path) -> None:
    """Puts the names of the files of a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
