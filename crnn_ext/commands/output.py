"""Output files of commands: checks of the path, and a file that several processes write."""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .messages import print_stderr

if TYPE_CHECKING:
    from crnn_ext.ocr.system.distributed import ProcessGroup

# For help texts.
REPLACED_WHEN_COMPLETE = "replaced only when complete"


def check_writable(path: str, inputs: Iterable[str | None]) -> None:
    """Raises ValueError unless the file can be written and is not an input; inputs may be None."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: -o must name a regular file")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: the folder does not exist")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{path}: the folder is not writable")
    identity = _identity(path)
    if identity is not None and any(_identity(file) == identity for file in inputs if file is not None):
        raise ValueError(f"{path}: -o must not name an input file")


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode, equal for all links to a file; None if the file does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


class ShardedFile:
    """A text file that the processes of a group write, each into its own shard: `x.0-of-2.tsv` for `x.tsv`.

    `merge` makes the file from the shards. Without it, as after an interruption, the shards are kept and the
    file does not change.

    Raises:
        OSError: the shard of this process cannot be written.
    """

    def __init__(self, path: str, group: "ProcessGroup") -> None:
        self._path = Path(path)
        self._group = group
        self._indices: list[int] = []
        self._shard = open(self._shard_path(group.rank), "w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __enter__(self) -> "ShardedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # `write` or `merge` has already raised it
            self._shard.close()
        path = self._shard_path(self._group.rank)
        if not self._indices:
            path.unlink(missing_ok=True)
        elif kind is not None:
            print_stderr(f"{self._path}: not written; the lines so far are in {path}")

    def write(self, index: int, line: str) -> None:
        """Adds the line, without its line break, of the item with this index among those of all processes."""
        from crnn_ext.ocr.system.atomic_write import add_filename_to_errors

        with add_filename_to_errors(self._shard.name):
            self._shard.write(f"{line}\n")
        self._indices.append(index)

    def merge(self) -> None:
        """Merges the shards in the order of the indices and removes them; all processes must call it.

        Raises:
            OSError: a shard is missing, as on machines that do not share the folder, or the file cannot be
                written.
        """
        from crnn_ext.ocr.system.atomic_write import add_filename_to_errors

        with add_filename_to_errors(self._shard.name):
            self._shard.close()
        indices = self._group.all_gather(self._indices)
        # All wait until the file is complete: torchrun kills the others when a process fails.
        self._group.broadcast_from_rank0(lambda: self._merge(indices))

    def _merge(self, indices: Sequence[Sequence[int]]) -> None:
        from crnn_ext.ocr.system.atomic_write import atomic_write

        paths = [self._shard_path(rank) for rank in range(self._group.world_size)]
        order = sorted((index, rank) for rank, of_rank in enumerate(indices) for index in of_rank)
        with ExitStack() as stack:
            shards = [stack.enter_context(open(path, "rb")) for path in paths]
            with atomic_write(self._path) as file:
                for _, rank in order:
                    file.write(shards[rank].readline())
        for path in paths:
            path.unlink(missing_ok=True)

    def _shard_path(self, rank: int) -> Path:
        return self._path.with_name(
            f"{self._path.stem}.{rank}-of-{self._group.world_size}{self._path.suffix}"
        )
