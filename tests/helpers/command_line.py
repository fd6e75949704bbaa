"""What tests of the command `crnn-ext` share."""

import re

# For a process of its own, where the command is not installed.
MAIN = "from crnn_ext.cli import main; raise SystemExit(main())"


def without_throughput(errors):
    """Standard error without its last line, which tells the throughput."""
    *lines, last = errors.splitlines(keepends=True)
    assert re.fullmatch(r"[\d,.]+ images/s, [\d,]+ images? in [\d.]+ s\n", last)
    return "".join(lines)
