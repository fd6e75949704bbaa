"""The option of commands that write a file, and a file that several processes write together."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .messages import complain

if TYPE_CHECKING:
    from crnn_ext.ocr.world import World

# How the help of a command says it.
WHOLE = "a file of this name is replaced when the new one is complete, not before"


def check(path: str, inputs: Iterable[str]) -> None:
    """Raises ValueError unless the file can be written and is none of the inputs."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: -o must name a file, and this is none")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise ValueError(f"{path}: there is no such folder")
    if os.path.abspath(path) in map(os.path.abspath, inputs):
        raise ValueError(f"{path}: -o would replace what is read")


class SharedFile:
    """Lines that the processes of a world write, each to a part of its own, `x.0-of-2.tsv` for `x.tsv`.

    `join` makes the file of the parts. Without it, as after an interruption, the parts stay as they are, and
    the file too.

    Raises:
        OSError: this process's part cannot be written.
    """

    def __init__(self, path: str, world: "World") -> None:
        self._path = Path(path)
        self._world = world
        self._indices: list[int] = []
        self._part = open(self._name(world.rank), "w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __enter__(self) -> "SharedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._part.close()
        if kind is not None:
            part = self._name(self._world.rank)
            if self._indices:
                complain(f"{self._path}: not written; what was read is in {part}")
            else:
                part.unlink(missing_ok=True)

    def write(self, index: int, line: str) -> None:
        """Adds a line, itself without a line break, of the item with this index among those of all."""
        self._part.write(f"{line}\n")
        self._indices.append(index)

    def join(self) -> None:
        """Joins the parts in the order of their indices and removes them; all processes do this together.

        Raises:
            OSError: a part is not there, as where machines do not share the folder, or the file cannot be
                written.
        """
        from crnn_ext.ocr.files import replacing

        self._part.close()
        indices = self._world.gather(self._indices)
        if self._world.rank:
            return
        names = [self._name(rank) for rank in range(self._world.ranks)]
        with ExitStack() as stack:
            parts = [stack.enter_context(open(name, "rb")) for name in names]
            with replacing(self._path) as file:
                for _, rank in sorted(
                    (index, rank) for rank, of_rank in enumerate(indices) for index in of_rank
                ):
                    file.write(parts[rank].readline())
        for name in names:
            name.unlink()

    def _name(self, rank: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{rank}-of-{self._world.ranks}{self._path.suffix}")
