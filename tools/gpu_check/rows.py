"""A row of results: what one contender did on one shape."""

from collections.abc import Sequence

# The modules that make rows, each to be run in a process of its own, and the seconds that those before it
# leave to it: 8 to begin, then a second or two for each contender on each shape; "peers" compiles with XLA.
GROUP_SECONDS = {"loss": 40, "greedy": 14, "decode": 20, "alignment": 20, "peers": 30}

# Notes that say all there is to say; others are errors.
NOT_INSTALLED, NOT_CHOSEN = "not installed", "not chosen by torch"

_IDENTITY = ("op", "shape", "contender", "dtype")


def first_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return NOT_INSTALLED
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class Row(dict):
    """Flat, and what the JSON holds. "note" says why something is missing."""

    def __init__(self, op: str, shape: Sequence[int], contender: str, dtype: str = "float32") -> None:
        super().__init__(op=op, shape=list(shape), contender=contender, dtype=dtype)


def same_row(one: dict, other: dict) -> bool:
    """Whether both are of the same contender on the same shape."""
    return all(one[key] == other[key] for key in _IDENTITY)
