"""Stages of a run: each ends in its own outcome and within its own time, whatever the others do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# How long a command may take to stop by itself, and to say what it knows, once its time is over.
_GRACE_SECONDS = 8
# A dry run is for any machine, however slow.
_DRY_RUN_PATIENCE = 6


class Outcome(NamedTuple):
    state: str  # "ok", "failed" or "not available"
    detail: str


class NotAvailableError(Exception):
    """This machine lacks what a stage needs."""


class LateError(Exception):
    """A command was stopped at its limit."""


def search_path() -> str:
    """PATH, with the programs of this Python and of CUDA behind it."""
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    folders = [str(Path(sys.executable).parent), *(f"{home}/bin" for home in homes if home)]
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])


def python_path() -> str:
    """The package as it is built in place, and the modules of this folder and of the one above it."""
    folders = (ROOT, ROOT / "benchmarks", ROOT / "benchmarks" / "gpu", os.environ.get("PYTHONPATH"))
    return os.pathsep.join(str(folder) for folder in folders if folder)


class Result(NamedTuple):
    status: int
    output: str

    def reason(self) -> str:
        """The last line that speaks of an error, or else the last one."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        of_errors = [line for line in lines if "error" in line.lower()]
        return (of_errors or lines or [f"status {self.status}"])[-1][:200]


class Run:
    """What all stages share, and the time that the present one has left."""

    def __init__(self, machine: dict[str, object], work: Path, dry_run: bool) -> None:
        self.machine = machine
        self.work = work
        self.dry_run = dry_run
        self.architecture = str(machine["compute capability"])
        self._log = work / "log"
        self._deadline = 0.0

    def begin(self, stage: str, limit: float) -> None:
        self._log = self.work / f"{stage}.log"
        self._log.write_text("")
        self._deadline = time.monotonic() + limit * (_DRY_RUN_PATIENCE if self.dry_run else 1)

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def command(self, *arguments: object, limit: float = float("inf"), **environment: str) -> Result:
        """Runs it in the checkout; raises LateError when its time or that of the stage is over."""
        command = list(map(str, arguments))
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # to stop it with all that it has started
        )
        late, output = False, ""
        try:
            output, _ = process.communicate(timeout=max(0.1, min(limit, self.seconds_left())))
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGINT)
            try:
                output, _ = process.communicate(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        with self._log.open("a") as log:  # whole, also where commands run side by side
            log.write(f"$ {' '.join(command)}\n{output}\n{'stopped' if late else process.returncode}\n\n")
        if late:
            raise LateError(f"stopped after its time: {Path(command[0]).name} {' '.join(command[1:3])}")
        return Result(process.returncode, output)

    def python(self, *arguments: object, limit: float = float("inf"), **environment: str) -> Result:
        return self.command(sys.executable, *arguments, limit=limit, **environment)

    def last_lines(self, count: int) -> str:
        return "\n".join(self._log.read_text().splitlines()[-count:])


Stage = Callable[[Run], Outcome]


def perform(run: Run, name: str, stage: Stage, limit: float) -> Outcome:
    """The outcome of a stage, also of one that raises."""
    run.begin(name, limit)
    try:
        return stage(run)
    except NotAvailableError as error:
        return Outcome("not available", str(error))
    except LateError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
