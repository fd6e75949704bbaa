"""Helpers for tests of the command `crnn-ext`."""

import re
import subprocess
import sys

# Runs the command in a new process where it is not installed.
MAIN = "from crnn_ext.cli import main; raise SystemExit(main())"


def run_without(modules, code, *arguments):
    """Run Python code in a new process that cannot import these modules."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + code, *map(str, arguments)], capture_output=True, text=True
    )


def without_throughput(errors):
    """Return standard error without its last line, the throughput."""
    *lines, last = errors.splitlines(keepends=True)
    assert re.fullmatch(r"[\d,.]+ images/s, [\d,]+ images? in [\d.]+ s\n", last)
    return "".join(lines)
