"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def replace_file(path: str | Path, content: bytes) -> None:
    """Writes a file. One of the same name is replaced when the new one is on the disk, not before.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of one of that name when the block ends without an error.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    unfinished = Path(f"{path}.tmp")  # always the same, so that what a kill leaves does not pile up
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _keep_name(unfinished.parent)
    except OSError as error:
        # The reader of the message knows the file by its own name.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _keep_name(folder: Path) -> None:
    """Puts the names of the files of a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
