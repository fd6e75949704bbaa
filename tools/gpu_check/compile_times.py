"""How long compilers take: their CPU seconds, noted step by step, and what follows for a machine of 16 cores.

    python compile_times.py FILE COMMAND...

runs a compiler and appends what it took to FILE. A rehearsal has patience, as its machine may be slow and
busy; whether a stage can end within its limit on the machine that the limits are for follows from the steps.
"""

import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# The machine that the limits are for.
CORES = 16
# Between the least that compiling takes and a limit that is realistic: slower cores, links, a cold disk.
MARGIN = 1.25


def noted(compiler: str, file: Path) -> Path:
    """A program that runs the compiler and notes its steps in the file.

    Others may be running it: it is replaced as a whole.
    """
    program = file.with_name(f"{file.stem}-{Path(compiler).name}")
    words = [sys.executable, str(Path(__file__).resolve()), str(file), compiler]
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as unfinished:
        unfinished.write(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    os.chmod(unfinished.name, 0o755)
    os.replace(unfinished.name, program)
    return program


def steps(file: Path) -> dict[str, float]:
    """The CPU seconds of the step that made each file, the last one of each."""
    if not file.is_file():
        return {}
    return dict(json.loads(line) for line in file.read_text().splitlines())


def limit_problem(limit: float, seconds: list[float], beside: float = 0.0) -> str | None:
    """Why a limit is not realistic for these steps, of which any may run at the same time; None if it is.

    `beside` are the CPU seconds of what runs on the same cores before them.
    """
    longest, whole = max(seconds, default=0.0), sum(seconds)
    needed = MARGIN * max(longest, (whole + beside) / CORES)
    if needed <= limit:
        return None
    return (
        f"the limit of {limit:.0f} s is too short: {len(seconds)} compiler steps of {whole:.0f} CPU s, the "
        f"longest {longest:.0f} s, need {needed:.0f} s on {CORES} cores"
    )


def main(file: str, *command: str) -> int:
    status = subprocess.call(command)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status == 0 and "-o" in command:  # and not one that only asks for the version
        made = command[command.index("-o") + 1]
        with open(file, "a") as steps:
            steps.write(json.dumps([made, used.ru_utime + used.ru_stime]) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
