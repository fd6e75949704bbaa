"""Atomic file writes: after a crash, a file has either its old or its complete new content."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY_NAME = ".crnn_ext-{}.tmp"


def temporary_path(path: Path) -> Path:
    """An unused path in the same folder, from which a rename to `path` is atomic."""
    return path.with_name(_TEMPORARY_NAME.format(secrets.token_hex(4)))


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file atomically: an existing file is replaced only when the new one is on the disk.

    Raises:
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    with atomic_write(path) as file:
        file.write(content)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A file open for writing, which replaces `path` when the block ends without an error.

    Raises:
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    temporary = temporary_path(Path(path))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _fsync_folder(temporary.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            # The message names the file that the caller knows.
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def add_filename_to_errors(path: str | Path) -> Iterator[None]:
    """Adds the file name to an OSError: read and write calls on an open file leave it out."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def remove_temporary_files(folder: Path) -> None:
    """Removes the files that killed processes left. No other process may be writing to the folder."""
    for path in folder.glob(_TEMPORARY_NAME.format("*")):
        path.unlink()


def _fsync_folder(folder: Path) -> None:
    """Flushes the directory entries to the disk, which makes a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
