"""Rows of results: one contender on one shape."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The benchmark modules. Each runs in its own process with at least this many seconds: 8 to start, then one or
# two per contender and shape. "peers" compiles with XLA.
_SECONDS, _DEFAULT_SECONDS = {"loss": 40, "greedy": 14, "peers": 30}, 20
_GROUPS = sorted(path.stem for path in (Path(__file__).parent / "groups").glob("*.py"))
GROUP_SECONDS = {group: _SECONDS.get(group, _DEFAULT_SECONDS) for group in _GROUPS}

# Notes that are not errors.
NOT_INSTALLED, NOT_CHOSEN = "not installed", "not chosen by torch"

# The JSON object of a row. "note" says why something is missing.
Row = dict[str, Any]


def new_row(op: str, shape: Sequence[int], contender: str, dtype: str = "float32") -> Row:
    return {"op": op, "shape": list(shape), "contender": contender, "dtype": dtype}


def same_row(one: Row, other: Row) -> bool:
    """Returns whether both rows are about the same contender and shape."""
    return all(one[key] == other[key] for key in ("op", "shape", "contender", "dtype"))


class NotChosenError(Exception):
    """torch does not select this implementation."""


def first_line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return NOT_INSTALLED
    if isinstance(error, NotChosenError):
        return NOT_CHOSEN
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextmanager
def note_errors(row: Row, prefix: str = "") -> Iterator[None]:
    """Turns an exception into the "note" of a row."""
    try:
        yield
    except Exception as error:
        row["note"] = prefix + first_line(error)
