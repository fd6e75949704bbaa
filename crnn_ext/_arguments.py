"""Argument checks of the whole package.

A failed check raises TypeError or ValueError with a message such as "beam_size must be in [1, 1024], got 0".
`name` is the argument in the message; it may begin with the owner, as in "Preprocessing: height". Messages
shorten values, which may be untrusted.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any


def check_type(name: str, value: object, types: type | tuple[type, ...], expected: str) -> None:
    """Checks that the value is an instance of the types, which `expected` names, such as "a tensor"."""
    if not isinstance(value, types):
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")


def check_bool(name: str, value: object) -> None:
    """Checks that the value is a bool."""
    check_type(name, value, bool, "a bool")


def check_str(name: str, value: object) -> None:
    """Checks that the value is a str."""
    check_type(name, value, str, "a str")


def check_each_str(name: str, values: Iterable[object]) -> None:
    """Checks that all values are str."""
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{name}[{index}] must be a str, got {type(value).__name__}")


def check_int(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Checks that the value is an int, not a bool, in [minimum, maximum]."""
    value = _as_int(name, value)
    if maximum is None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r:.60}")
    if maximum is not None and not minimum <= value <= maximum:
        raise ValueError(f"{name} must be in [{minimum}, {maximum}], got {value!r:.60}")


def check_index(name: str, value: object, size: int) -> None:
    """Checks that the value is an int, not a bool, in [0, size)."""
    value = _as_int(name, value)
    if not 0 <= value < size:
        raise ValueError(f"{name} must be in [0, {size}), got {value!r:.60}")


def check_number(
    name: str,
    value: object,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    finite: bool = True,
) -> None:
    """Checks that the value is an int or float, not a bool, in [minimum, maximum], and not NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if minimum <= value <= maximum and not (finite and value in (-math.inf, math.inf)):
        return
    if math.isfinite(minimum) and math.isfinite(maximum):
        rule = f"in [{minimum:g}, {maximum:g}]"
    elif value != value or (finite and value in (-math.inf, math.inf)):
        rule = "finite" if finite else "a number"
    else:
        rule = f"at least {minimum:g}" if value < minimum else f"at most {maximum:g}"
    raise ValueError(f"{name} must be {rule}, got {value!r:.60}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Checks that the value is one of the choices."""
    check_str(name, value)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r:.60}")


def check_keys(name: str, data: object, keys: set[str]) -> dict[str, Any]:
    """Checks that the data is a mapping with exactly these keys; returns it as a dict."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{name} must be a mapping, got {type(data).__name__}")
    if set(data) != keys:
        raise ValueError(f"{name} must have the keys {sorted(keys)}, got {list(data)!r:.200}")
    return dict(data)


def _as_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    return value
