"""Stages of a run: each ends in its own outcome and within its own time, whatever the others do."""

import contextlib
import importlib.machinery
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# How long a command may take to stop by itself, and to say what it knows, once its time is over.
GRACE_SECONDS = 3
# A rehearsal is for any machine, however slow; compile_times.py judges whether the limits are realistic.
REHEARSAL_TIME_FACTOR = 20
# How often a stage reports its progress.
_PROGRESS_SECONDS = 2


class Outcome(NamedTuple):
    # "ok", "failed", "not available" or "unfinished": it still runs, was killed, or its time was too short.
    state: str
    detail: str


class NotAvailableError(Exception):
    """This machine lacks what a stage needs."""


class StageTimeoutError(Exception):
    """A command was stopped at its limit."""


def require(program: str) -> None:
    if shutil.which(program) is None:
        raise NotAvailableError(f"{program} is not on PATH")


def exit_on_sigterm() -> None:
    """As at the end of a failed run: no command is left behind that would keep the GPU."""

    def end(*_: object) -> None:
        # `timeout` ends make and this process, and make ends it once more.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)


def search_path() -> str:
    """PATH, with the programs of this Python and of CUDA behind it."""
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    folders = [str(Path(sys.executable).parent), *(f"{home}/bin" for home in homes if home)]
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])


def python_path(*more: Path) -> str:
    """The package as it is built in place, and the modules of this folder, the one above it and tests/."""
    folders = (ROOT, ROOT / "benchmarks", HERE, os.environ.get("PYTHONPATH"), *more, ROOT / "tests")
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
    """What all stages share."""

    def __init__(self, machine: dict[str, object], work: Path, rehearsal: bool = False) -> None:
        self.machine = machine
        self.work = work
        self.rehearsal = rehearsal
        self.time_factor = REHEARSAL_TIME_FACTOR if rehearsal else 1
        self.architecture = str(machine["compute capability"])
        # Packages that were carried here, where Python does not have them.
        self.site = work / "site"

    def python_path(self) -> str:
        """For the commands of a stage."""
        return python_path(self.site)

    def has_package(self, name: str) -> bool:
        """Whether the commands of a stage can import it."""
        importlib.invalidate_caches()  # a stage may have installed it
        return importlib.machinery.PathFinder.find_spec(name, [str(self.site), *sys.path]) is not None

    def nvcc(self) -> str:
        """That of the toolkit which setup.py builds with."""
        home = self.machine["CUDA toolkit"]
        if home is None:
            raise NotAvailableError("there is no CUDA toolkit (nvcc and libcudart_static.a)")
        return f"{home}/bin/nvcc"

    def for_device(self, command: list[object]) -> list[object]:
        """The command of a compiler or a tool for the GPU, or what stands in for it in a rehearsal."""
        return [sys.executable, HERE / "rehearsal.py", *command] if self.rehearsal else command


class Stage:
    """One stage: its time, its log, the commands that it runs, and the progress that it reports."""

    def __init__(
        self,
        run: Run,
        name: str,
        limit: float,
        on_progress: Callable[["Stage", str], None] = lambda stage, detail: None,
    ) -> None:
        self.run = run
        self.name = name
        self._on_progress = on_progress
        # Where what is measured or tested is appended to as it comes.
        self.notes = run.work / f"{name}.jsonl"
        self.notes.unlink(missing_ok=True)
        self._log = run.work / f"{name}.log"
        self._log.write_text("")
        self._lock = threading.RLock()
        self._running: set[subprocess.Popen] = set()
        self._numbers = itertools.count(1)
        self._deadline = time.monotonic() + limit * run.time_factor

    def report_progress(self, detail: str) -> None:
        """What is known so far; from any thread."""
        with self._lock:
            self._on_progress(self, detail)

    def stop(self) -> None:
        """Ends all that runs."""
        self._deadline = 0.0
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):  # it has just ended, and its thread has seen that
                os.killpg(process.pid, signal.SIGKILL)

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def command(
        self,
        *arguments: object,
        limit: float = float("inf"),
        meanwhile: Callable[[], str] | None = None,
        **environment: str,
    ) -> Result:
        """Runs it in the checkout; raises StageTimeoutError when its time or that of the stage is over.

        `meanwhile` is asked again and again for the progress to report. The output is in a file from the
        start, so that it is there also if this program is killed.
        """
        command = list(map(str, arguments))
        part = self.run.work / f"{self.name}-{next(self._numbers)}.part"
        with part.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": self.run.python_path(),
                    "PYTHONUNBUFFERED": "1",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # to stop it with all that it has started
            )
        self._running.add(process)
        end = time.monotonic() + min(limit, self.seconds_left())
        try:
            late = not self._ends_before(process, end, meanwhile)
            if late:
                os.killpg(process.pid, signal.SIGINT)
                self._ends_before(process, time.monotonic() + GRACE_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._running.discard(process)
        output = part.read_text(errors="replace")
        with self._lock, self._log.open("a") as log:  # whole, also where commands run side by side
            log.write(f"$ {' '.join(command)}\n{output}\n{'stopped' if late else process.returncode}\n\n")
        part.unlink()
        if late:
            raise StageTimeoutError(
                f"stopped after its time: {Path(command[0]).name} {' '.join(command[1:3])}"
            )
        return Result(process.returncode, output)

    def _ends_before(
        self, process: subprocess.Popen, end: float, meanwhile: Callable[[], str] | None = None
    ) -> bool:
        while True:
            patience = max(0.1, end - time.monotonic())
            try:
                process.wait(min(patience, _PROGRESS_SECONDS) if meanwhile else patience)
                return True
            except subprocess.TimeoutExpired:
                if time.monotonic() >= end:
                    return False
                if meanwhile:
                    self.report_progress(meanwhile())

    def python(self, *arguments: object, **options) -> Result:
        return self.command(sys.executable, *arguments, **options)

    def last_lines(self, count: int) -> str:
        return "\n".join(self._log.read_text().splitlines()[-count:])


def run_parallel(stage: Stage, calls: Iterable[Callable[[], object]], workers: int) -> list:
    """The results of all calls; the first exception ends the stage's commands, and is raised."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stage.stop()
            raise


def run_stage(stage: Stage, function: Callable[[Stage], Outcome]) -> Outcome:
    """The outcome of a stage, also of one that raises."""
    try:
        return function(stage)
    except NotAvailableError as error:
        return Outcome("not available", str(error))
    except StageTimeoutError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
