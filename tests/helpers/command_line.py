"""Helpers for tests of the command `crnn-ext`."""

import re

# Runs the command in a new process where it is not installed.
MAIN = "from crnn_ext.cli import main; raise SystemExit(main())"


def without_throughput(errors):
    """Return standard error without its last line, the throughput."""
    *lines, last = errors.splitlines(keepends=True)
    assert re.fullmatch(r"[\d,.]+ images/s, [\d,]+ images? in [\d.]+ s\n", last)
    return "".join(lines)
