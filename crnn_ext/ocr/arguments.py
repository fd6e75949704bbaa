"""Checks of settings that may come from a file of unknown origin."""

import math
from collections.abc import Mapping
from typing import Any


def check_int(owner: str, name: str, value: object, least: int, most: int) -> None:
    """Raises TypeError or ValueError, naming the argument and the value, unless it is in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be an int, and it is {value!r:.60}")
    if not least <= value <= most:
        # A file may hold an integer too long for str.
        found = value if abs(value) < 1 << 64 else f"an integer of {value.bit_length()} bits"
        raise ValueError(f"{owner}: {name} must be in [{least}, {most}], and it is {found}")


def check_number(owner: str, name: str, value: object, above: float, most: float) -> None:
    """Raises TypeError or ValueError, naming the argument and the value, unless it is in (above, most]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{owner}: {name} must be a number, and it is {value!r:.60}")
    if math.isnan(value) or not above < value <= most:
        raise ValueError(f"{owner}: {name} must be in ({above:g}, {most:g}], and it is {value!r:.60}")


def check_keys(owner: str, data: object, keys: set[str]) -> dict[str, Any]:
    """The data as a dict; raises TypeError or ValueError unless it is a mapping with exactly these keys."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{owner}: it must be a mapping, and it is {type(data).__name__}")
    if set(data) != keys:
        missing, unknown = sorted(keys - set(data)), sorted(map(str, set(data) - keys))
        raise ValueError(f"{owner}: keys are missing: {missing}, or unknown: {unknown!s:.200}")
    return dict(data)
