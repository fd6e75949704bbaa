"""Recursive listing of folders."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(root: str | Path, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder under the root with the sorted names of its files.

    Symbolic links are followed. Each folder is visited once, so cycles of links end.

    Args:
        root: the folder.
        on_error: receives the error of each folder that cannot be listed. It may raise.
    """
    seen = set()
    pending = [os.fspath(root)]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            on_error(error)
            continue
        pending += [entry.path for entry in reversed(found) if _is_folder(entry)]
        yield Path(folder), [entry.name for entry in found if is_file(entry)]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a regular file, or a broken link: reading that one reports the error.

    Other entries are excluded: reading a pipe, for example, may never end.
    """
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
