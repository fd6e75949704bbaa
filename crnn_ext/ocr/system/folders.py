"""Folders with all that is below them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(root: str | Path, refuse: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder under the root with the names of its files, sorted; links in circles end.

    Args:
        root: the folder.
        refuse: is told of each folder that cannot be listed. It may raise.
    """
    seen = set()
    left = [os.fspath(root)]
    while left:
        folder = left.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            refuse(error)
            continue
        left += [entry.path for entry in reversed(found) if _is_folder(entry)]
        yield Path(folder), [entry.name for entry in found if is_file(entry)]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file to read, or a link of which reading will say what is wrong with it.

    What else there is, such as a pipe, may never end.
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
