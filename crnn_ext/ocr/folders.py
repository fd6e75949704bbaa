"""Folders with all that is below them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(root: str | Path, refuse: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder under the root with the names of its regular files, sorted; links in circles end.

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
        left += [entry.path for entry in reversed(found) if entry.is_dir()]
        # Only regular files: what else there is, such as a pipe, may never end.
        yield Path(folder), [entry.name for entry in found if entry.is_file()]
