"""Text as a part of a line of output."""

import re

# What would break a line, steer a terminal or be no character at all, such as a byte of a name not in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters, line breaks and lone surrogates written as in Python."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
