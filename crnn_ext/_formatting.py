"""Text as a part of a line of output."""

import re
from collections.abc import Sequence

# What would break a line, steer a terminal or be no character at all, such as a byte of a name not in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters, line breaks and lone surrogates written as in Python."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def pluralize(number: int, noun: str) -> str:
    """Such as "1 line" and "10,000 lines"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first of the names, and how many more there are."""
    more = f"; and {len(names) - most:,} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more
