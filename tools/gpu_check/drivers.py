"""The C++ drivers of the kernels, compiled by nvcc and run on the card: their results.

They are those of tests/cuda_on_host, where they run on a CPU.
"""

import contextlib
import os
import re
from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import compile_times
from stages import ROOT, NotAvailableError, Outcome, Run, Stage, StageTimeoutError, run_parallel

FOLDER = ROOT / "tests" / "cuda_on_host" / "drivers"
# The one whose cases have planted faults, but for some.
FAULTS = "planted_faults"
# Compilers work beside the build and the tests, and behind them.
_NICE = ["nice", "-n", "10"]
_SIDE_BY_SIDE = 4


def _cases() -> list[tuple[str, str, str]]:
    """Of its cases the name, the kind of faults and the fault."""
    source = (FOLDER / f"{FAULTS}.cu").read_text()
    return re.findall(r'\{"([^"]+)", \w+<(\w*Fault)::(\w+)>\}', source)


def fault_free_cases() -> list[str]:
    return [name for name, _, fault in _cases() if fault == "kNone"]


def fault_cases() -> list[str]:
    """Those with a fault that a tool could report: it sees memory and barriers, and not wrong arithmetic."""
    return [name for name, kind, fault in _cases() if kind == "Fault" and fault != "kNone"]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.cu"))


def executable(run: Run, name: str) -> Path:
    return run.work / f"driver_{name}"


def driver_commands(run: Run, not_compiled: Container[str]) -> dict[str, list[object]]:
    """How each driver runs that was compiled, without the faults."""
    commands: dict[str, list[object]] = {name: [executable(run, name)] for name in names()}
    commands[FAULTS] += fault_free_cases()
    return {name: command for name, command in commands.items() if name not in not_compiled}


class Compilation:
    """Compiles all drivers, from now on and in the background."""

    def __init__(self, run: Run, limit: float, wanted: bool) -> None:
        self.run = run
        self.limit = limit
        self._steps = run.work / "drivers.steps"
        self._stage = Stage(run, "compile", limit)
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._compiled: dict[str, Future[str | None]] = {}
        # Without a compiler, the stages that need it say so.
        with contextlib.suppress(NotAvailableError):
            if wanted:
                nvcc = compile_times.noted(run.nvcc(), self._steps)
                self._compiled = {name: pool.submit(self._compile, nvcc, name) for name in names()}
        pool.shutdown(wait=False)

    def _compile(self, nvcc: Path, name: str) -> str | None:
        """Why it failed; None if it did not."""
        made = executable(self.run, name)
        made.unlink(missing_ok=True)
        flags = ["-std=c++20", "-O2", "--expt-relaxed-constexpr", "-lineinfo"]
        flags += [f"-arch=sm_{self.run.architecture.replace('.', '')}"]
        flags += ["-I", ROOT / "csrc", "-I", ROOT / "tests" / "cuda_on_host"]
        try:
            result = self._stage.command(
                *_NICE, *self.run.for_device([nvcc, *flags, FOLDER / f"{name}.cu", "-o", made])
            )
        except StageTimeoutError:
            return f"{name} was not compiled within {self.limit:.0f} s"
        if result.status != 0:
            return f"{name} does not compile: {result.reason()}"
        return None if made.is_file() else f"{name} does not compile: nvcc made nothing"

    def stop(self) -> None:
        """Nothing of it goes on, or begins."""
        for future in self._compiled.values():
            future.cancel()
        self._stage.stop()

    def wait(self) -> None:
        """Until all are compiled, or late."""
        wait(self._compiled.values())

    def seconds(self) -> list[float]:
        """The CPU seconds of each compiler, also of an earlier run."""
        return list(compile_times.steps(self._steps).values())

    def failures(self) -> dict[str, str]:
        """Of the drivers that cannot run: why."""
        reasons = {name: future.result() for name, future in self._compiled.items()}
        return {
            name: reason
            for name in names()
            if (reason := reasons.get(name, f"{name} was not compiled")) is not None
        }


def drivers(stage: Stage, compilation: Compilation) -> Outcome:
    """Runs each without any tool. One that was not compiled has failed."""
    stage.run.nvcc()

    def reason(name: str, command: list[object]) -> str | None:
        try:
            result = stage.command(*command)
        except StageTimeoutError:
            return f"{name}: not done in its time"
        if result.status == 0:
            return None
        wrong = re.findall(r"^FAILED.*", result.output, re.MULTILINE) or [result.reason()]
        return f"{name}: {len(wrong)} wrong, first {wrong[0]}"

    not_compiled = compilation.failures()
    commands = driver_commands(stage.run, not_compiled)
    reasons = run_parallel(stage, [partial(reason, *item) for item in commands.items()], _SIDE_BY_SIDE)
    failures = [*not_compiled.values(), *filter(None, reasons)]
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"right: {', '.join(commands)}")
