"""Folders with all that is below them."""

import os
from collections.abc import Iterator
from pathlib import Path


def walk(root: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder under the root with the names of its files, sorted; links that lead in circles end.

    Raises:
        OSError: a folder cannot be listed.
    """
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield Path(folder), sorted(names)


def _refuse(error: OSError) -> None:
    raise error
