"""Stages of a run. Each has its own time limit and outcome, whatever happens in the others."""

import contextlib
import importlib.machinery
import itertools
import os
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

# How long a command may take to stop after its time limit.
GRACE_SECONDS = 3
# Multiplies the limits in a rehearsal, which may run on a slow machine. compile_times.py checks the limits.
REHEARSAL_TIME_FACTOR = 20
_PROGRESS_SECONDS = 2
# The exit status of timeout(1) after SIGINT, and after SIGKILL, which may also kill timeout itself.
_TIMEOUT_STATUS = (124, 137, -signal.SIGKILL)


class Outcome(NamedTuple):
    # "ok", "failed", "not available" or "unfinished": still running, killed, or out of time.
    state: str
    detail: str


class NotAvailableError(Exception):
    """This machine lacks what a stage needs."""


class StageTimeoutError(Exception):
    """A command was stopped at its time limit."""


def exit_on_sigterm() -> None:
    """Exits normally on SIGTERM, so that all commands are stopped: they would occupy the GPU."""

    def handler(*_: object) -> None:
        # `timeout make gpu` sends the signal twice: once directly and once through make.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, handler)


def search_path() -> str:
    """Returns PATH, followed by the programs of this Python and of CUDA."""
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    folders = [str(Path(sys.executable).parent), *(f"{home}/bin" for home in homes if home)]
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])


def python_path(*more: Path) -> str:
    """Returns a PYTHONPATH with the package as built in place, benchmarks/, this folder and tests/."""
    folders = (ROOT, ROOT / "benchmarks", HERE, os.environ.get("PYTHONPATH"), *more, ROOT / "tests")
    return os.pathsep.join(str(folder) for folder in folders if folder)


class Result(NamedTuple):
    status: int
    output: str

    def reason(self) -> str:
        """Returns the last line that mentions an error, or else the last line."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [f"status {self.status}"])[-1][:200]


class Run:
    """The machine, the folders and the mode of a run, shared by all stages."""

    def __init__(self, machine: dict[str, object], work: Path, rehearsal: bool = False) -> None:
        self.machine = machine
        self.work = work
        self.rehearsal = rehearsal
        self.time_factor = REHEARSAL_TIME_FACTOR if rehearsal else 1
        self.architecture = str(machine["compute capability"])
        # Packages from `make gpu-wheels`, installed for this run only.
        self.site = work / "site"

    def has_package(self, name: str) -> bool:
        """Returns whether the commands of a stage can import a package."""
        importlib.invalidate_caches()  # a stage may have installed it
        return importlib.machinery.PathFinder.find_spec(name, [str(self.site), *sys.path]) is not None

    def nvcc(self) -> str:
        """Returns the nvcc of the toolkit that setup.py builds with."""
        home = self.machine["CUDA toolkit"]
        if home is None:
            raise NotAvailableError("there is no CUDA toolkit (nvcc and libcudart_static.a)")
        return f"{home}/bin/nvcc"

    def for_device(self, command: list[object]) -> list[object]:
        """Returns the command of a compiler or tool for the GPU, or its stand-in in a rehearsal."""
        return [sys.executable, HERE / "rehearsal.py", *command] if self.rehearsal else command


class Stage:
    """Runs the commands of a stage within its time limit, logs them and reports progress."""

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
        # Measurements and test results, one JSON object per line. Commands append to it as they come.
        self.records = run.work / f"{name}.jsonl"
        self.records.unlink(missing_ok=True)
        self._log = run.work / f"{name}.log"
        self._log.write_text("")
        self._lock = threading.RLock()
        self._running: set[subprocess.Popen] = set()
        self._numbers = itertools.count(1)
        self._deadline = time.monotonic() + limit * run.time_factor

    def report_progress(self, detail: str) -> None:
        with self._lock:
            self._on_progress(self, detail)

    def stop(self) -> None:
        """Kills all running commands."""
        self._deadline = 0.0
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def command(
        self,
        *arguments: object,
        limit: float = float("inf"),
        progress: Callable[[], str] | None = None,
        **environment: str,
    ) -> Result:
        """Runs a command in the repository.

        Raises StageTimeoutError at its limit or that of the stage. While the command runs, its output is in a
        file, and `progress()` is reported every few seconds.
        """
        command = list(map(str, arguments))
        variables = {"PYTHONPATH": python_path(self.run.site), "PYTHONUNBUFFERED": "1", **environment}
        seconds = max(0.1, min(limit, self.seconds_left()))
        # Sends SIGINT to the whole process group at the limit, and SIGKILL after a grace period.
        timeout = ["timeout", "--signal=INT", f"--kill-after={GRACE_SECONDS}", str(seconds)]
        part = self.run.work / f"{self.name}-{next(self._numbers)}.part"
        begin = time.monotonic()
        with part.open("w") as file:
            process = subprocess.Popen(
                [*timeout, *command],
                cwd=ROOT,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group, to stop all that the command starts
            )
        self._running.add(process)
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_PROGRESS_SECONDS if progress else None)
                    break
                self.report_progress(progress())
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._running.discard(process)
        late = process.returncode in _TIMEOUT_STATUS and time.monotonic() - begin >= seconds
        output = part.read_text(errors="replace")
        with self._lock, self._log.open("a") as log:  # in one piece, also from parallel commands
            log.write(f"$ {' '.join(command)}\n{output}\n{'stopped' if late else process.returncode}\n\n")
        part.unlink()
        if late:
            raise StageTimeoutError(
                f"stopped at its time limit: {Path(command[0]).name} {' '.join(command[1:3])}"
            )
        return Result(process.returncode, output)

    def python(self, *arguments: object, **options) -> Result:
        return self.command(sys.executable, *arguments, **options)

    def last_lines(self, count: int) -> str:
        return "\n".join(self._log.read_text().splitlines()[-count:])


def run_parallel(stage: Stage, calls: Iterable[Callable[[], object]], workers: int) -> list:
    """Returns the results of all calls. The first exception stops the stage's commands and propagates."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stage.stop()
            raise


def run_stage(stage: Stage, function: Callable[[Stage], Outcome]) -> Outcome:
    """Returns the outcome of a stage, also if it raises."""
    try:
        return function(stage)
    except NotAvailableError as error:
        return Outcome("not available", str(error))
    except StageTimeoutError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
