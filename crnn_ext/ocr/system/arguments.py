"""Checks of settings that may come from a file of unknown origin.

`owner` is whose argument it is; it may be empty where the name says that.
"""

from collections.abc import Mapping
from typing import Any


def check_int(owner: str, name: str, value: object, least: int, most: int) -> None:
    """Raises TypeError or ValueError, naming the argument and the value, unless it is in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{_of(owner)}{name} must be an int, and it is {value!r:.60}")
    if not least <= value <= most:
        raise ValueError(f"{_of(owner)}{name} must be in [{least}, {most}], and it is {value!r:.60}")


def check_number(owner: str, name: str, value: object, least: float, most: float) -> None:
    """Raises TypeError or ValueError, naming the argument and the value, unless it is in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_of(owner)}{name} must be a number, and it is {value!r:.60}")
    if not least <= value <= most:  # neither is NaN
        raise ValueError(f"{_of(owner)}{name} must be in [{least:g}, {most:g}], and it is {value!r:.60}")


def check_keys(owner: str, data: object, keys: set[str]) -> dict[str, Any]:
    """The data as a dict; raises TypeError or ValueError unless it is a mapping with exactly these keys."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{_of(owner)}it must be a mapping, and it is {data!r:.60}")
    if set(data) != keys:
        raise ValueError(f"{_of(owner)}its keys must be {sorted(keys)}, and they are {list(data)!r:.200}")
    return dict(data)


def _of(owner: str) -> str:
    return f"{owner}: " if owner else ""
