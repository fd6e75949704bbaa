"""What commands say, each in one line."""

import re
import sys

# What would break a line, steer a terminal or be no character at all, such as a byte of a name not in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def failure(message: str) -> int:
    """Says that nothing could be done, and returns the exit status for it."""
    complain(message)
    return 2


def complain(message: str) -> None:
    """Says what is wrong on standard error."""
    print(f"crnn-ext: {printable(message)}", file=sys.stderr)


def printable(text: str) -> str:
    """The text as a part of a line of output, with control characters written as in Python."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
