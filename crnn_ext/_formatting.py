"""Formats values for lines of output."""

import re
from collections.abc import Sequence

# Line breaks, control characters, and lone surrogates, which stand for the bytes of names not in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters, line breaks and lone surrogates as Python escapes."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def pluralize(number: int, noun: str) -> str:
    """A number and a noun, such as "1 line" and "10,000 lines"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and the number of the others."""
    more = f"; and {len(names) - limit:,} more" if len(names) > limit else ""
    return "; ".join(names[:limit]) + more
