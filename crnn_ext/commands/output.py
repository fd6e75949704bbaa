"""The option of commands that write a file, and a file that several processes write together."""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .messages import print_stderr

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import ProcessGroup

# How the help of a command says it.
REPLACED_WHEN_COMPLETE = "a file of this name is replaced when the new one is complete, not before"


def check_writable(path: str, inputs: Iterable[str | None]) -> None:
    """Raises ValueError unless the file can be written and is none of the inputs; None is no input."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: -o must name a file, and this is none")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: there is no such folder")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{path}: its folder cannot be written to")
    written = _file(path)
    if written is not None and any(_file(read) == written for read in inputs if read is not None):
        raise ValueError(f"{path}: -o would replace what is read")


def _file(path: str) -> tuple[int, int] | None:
    """Tells a file apart from all others, whatever links lead to it; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class ShardedFile:
    """Lines that the processes of a group write, each to a part of its own, `x.0-of-2.tsv` for `x.tsv`.

    `merge` makes the file of the parts. Without it, as after an interruption, the parts stay as they are, and
    the file too.

    Raises:
        OSError: this process's part cannot be written.
    """

    def __init__(self, path: str, group: "ProcessGroup") -> None:
        self._path = Path(path)
        self._group = group
        self._indices: list[int] = []
        self._part = open(self._name(group.rank), "w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __enter__(self) -> "ShardedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what could not be written was told by `write` or `merge`
            self._part.close()
        part = self._name(self._group.rank)
        if not self._indices:
            part.unlink(missing_ok=True)
        elif kind is not None:
            print_stderr(f"{self._path}: not written; what was read is in {part}")

    def write(self, index: int, line: str) -> None:
        """Adds a line, itself without a line break, of the item with this index among those of all."""
        from crnn_ext.ocr.system.atomic_write import add_filename_to_errors

        with add_filename_to_errors(self._part.name):
            self._part.write(f"{line}\n")
        self._indices.append(index)

    def merge(self) -> None:
        """Joins the parts in the order of their indices and removes them; all processes do this together.

        Raises:
            OSError: a part is not there, as where machines do not share the folder, or the file cannot be
                written.
        """
        from crnn_ext.ocr.system.atomic_write import add_filename_to_errors

        with add_filename_to_errors(self._part.name):
            self._part.close()
        indices = self._group.all_gather(self._indices)
        # Nobody leaves before the file is there: torchrun ends all processes after the first that fails.
        self._group.broadcast_from_rank0(lambda: self._merge(indices))

    def _merge(self, indices: Sequence[Sequence[int]]) -> None:
        from crnn_ext.ocr.system.atomic_write import atomic_write

        names = [self._name(rank) for rank in range(self._group.world_size)]
        with ExitStack() as stack:
            parts = [stack.enter_context(open(name, "rb")) for name in names]
            with atomic_write(self._path) as file:
                for _, rank in sorted(
                    (index, rank) for rank, of_rank in enumerate(indices) for index in of_rank
                ):
                    file.write(parts[rank].readline())
        for name in names:
            name.unlink(missing_ok=True)

    def _name(self, rank: int) -> Path:
        return self._path.with_name(
            f"{self._path.stem}.{rank}-of-{self._group.world_size}{self._path.suffix}"
        )
