"""Record the CPU seconds of compiler steps, and check time limits for a machine with 16 cores.

    python compile_times.py FILE COMMAND...

runs a compiler and appends its time to FILE. A rehearsal runs on any machine; the recorded times show whether
a stage can finish within its limit on the machine that the limits are for.
"""

import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

CORES = 16
# A realistic limit over the minimum compile time: slower cores, linking, a cold disk.
MARGIN = 1.25


def wrap_compiler(compiler: str, file: Path) -> Path:
    """Creates a program that runs the compiler and records its steps in the file."""
    program = file.with_name(f"{file.stem}-{Path(compiler).name}")
    words = [sys.executable, str(Path(__file__).resolve()), str(file), compiler]
    # Replaced atomically, because another process may be running it.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as temporary:
        temporary.write(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    os.chmod(temporary.name, 0o755)
    os.replace(temporary.name, program)
    return program


def step_seconds(file: Path) -> list[float]:
    """Returns the CPU seconds of the last step for each output, also from earlier runs."""
    if not file.is_file():
        return []
    return list(dict(json.loads(line) for line in file.read_text().splitlines()).values())


def limit_problem(limit: float, seconds: list[float], before: float = 0.0) -> str | None:
    """Returns why a limit is too short for these parallel steps, or None.

    `before`: CPU seconds of earlier work on the same cores.
    """
    longest, total = max(seconds, default=0.0), sum(seconds)
    needed = MARGIN * max(longest, (total + before) / CORES)
    if needed <= limit:
        return None
    return (
        f"the limit of {limit:.0f} s is too short: {len(seconds)} compiler steps of {total:.0f} CPU s, the "
        f"longest {longest:.0f} s, need {needed:.0f} s on {CORES} cores"
    )


def main(file: str, *command: str) -> int:
    status = subprocess.call(command)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status == 0 and "-o" in command:  # not a query for the version
        output = command[command.index("-o") + 1]
        with open(file, "a") as steps:
            steps.write(json.dumps([output, used.ru_utime + used.ru_stime]) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
