"""A row of results: what one contender did on one shape."""

from collections.abc import Sequence

# The modules that make rows, each to be run in a process of its own.
GROUPS = ["loss", "greedy", "decode", "alignment", "others"]


def first_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "not installed"
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class Row(dict):
    """Flat, and what the JSON holds. "note" says why something is missing."""

    def __init__(self, op: str, shape: Sequence[int], contender: str, dtype: str = "float32") -> None:
        super().__init__(op=op, shape=list(shape), contender=contender, dtype=dtype)
