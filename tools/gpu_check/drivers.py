"""The drivers stage: the kernel drivers of tests/cuda_on_host, compiled by nvcc and run on the GPU."""

import contextlib
import os
import re
from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from compile_times import step_seconds, wrap_compiler
from stages import ROOT, NotAvailableError, Outcome, Run, Stage, StageTimeoutError, run_parallel

FOLDER = ROOT / "tests" / "cuda_on_host" / "drivers"
# The driver with planted faults. Some of its cases have none.
FAULTS = "planted_faults"
# Compilers run beside the build and the tests, with a lower priority.
_NICE = ["nice", "-n", "10"]
_WORKERS = 4


def _cases() -> list[tuple[str, str, str]]:
    """Returns (name, kind of fault, fault) of each case of the driver with planted faults."""
    source = (FOLDER / f"{FAULTS}.cu").read_text()
    return re.findall(r'\{"([^"]+)", \w+<(\w*Fault)::(\w+)>\}', source)


def fault_free_cases() -> list[str]:
    return [name for name, _, fault in _cases() if fault == "kNone"]


def fault_cases() -> list[str]:
    """Returns the cases with a fault that a tool can report; tools do not see wrong arithmetic."""
    return [name for name, kind, fault in _cases() if kind == "Fault" and fault != "kNone"]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.cu"))


def executable(run: Run, name: str) -> Path:
    return run.work / f"driver_{name}"


def driver_commands(run: Run, not_compiled: Container[str]) -> dict[str, list[object]]:
    """Returns the command of each compiled driver, without cases that have a fault."""
    commands: dict[str, list[object]] = {name: [executable(run, name)] for name in names()}
    commands[FAULTS] += fault_free_cases()
    return {name: command for name, command in commands.items() if name not in not_compiled}


class Compilation:
    """Compiles all drivers in the background."""

    def __init__(self, run: Run, limit: float, wanted: bool) -> None:
        self.run = run
        self.limit = limit
        self._steps = run.work / "drivers.steps"
        self._stage = Stage(run, "compile", limit)
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._compiled: dict[str, Future[str | None]] = {}
        # If nvcc is missing, the stages that need it report that.
        with contextlib.suppress(NotAvailableError):
            if wanted:
                nvcc = wrap_compiler(run.nvcc(), self._steps)
                self._compiled = {name: pool.submit(self._compile, nvcc, name) for name in names()}
        pool.shutdown(wait=False)

    def _compile(self, nvcc: Path, name: str) -> str | None:
        """Returns why the compilation failed, or None."""
        output = executable(self.run, name)
        output.unlink(missing_ok=True)
        flags = ["-std=c++20", "-O2", "--expt-relaxed-constexpr", "-lineinfo"]
        flags += [f"-arch=sm_{self.run.architecture.replace('.', '')}"]
        flags += ["-I", ROOT / "csrc", "-I", ROOT / "tests" / "cuda_on_host"]
        command = self.run.for_device([nvcc, *flags, FOLDER / f"{name}.cu", "-o", output])
        try:
            result = self._stage.command(*_NICE, *command)
        except StageTimeoutError:
            return f"{name} was not compiled within {self.limit:.0f} s"
        if result.status != 0:
            return f"{name} does not compile: {result.reason()}"
        return None if output.is_file() else f"{name} does not compile: nvcc wrote no output"

    def stop(self) -> None:
        """Stops running compilers and starts no others."""
        for future in self._compiled.values():
            future.cancel()
        self._stage.stop()

    def wait(self) -> None:
        wait(self._compiled.values())

    def seconds(self) -> list[float]:
        """Returns the CPU seconds of each compiler step, also of an earlier run."""
        return step_seconds(self._steps)

    def failures(self) -> dict[str, str]:
        """Waits, and returns the drivers that cannot run, with reasons."""
        reasons = {name: future.result() for name, future in self._compiled.items()}
        all_reasons = {name: reasons.get(name, f"{name} was not compiled") for name in names()}
        return {name: reason for name, reason in all_reasons.items() if reason is not None}


def drivers(stage: Stage, compilation: Compilation) -> Outcome:
    """Runs each driver without a tool. A driver that was not compiled has failed."""
    stage.run.nvcc()

    def failure(name: str, command: list[object]) -> str | None:
        try:
            result = stage.command(*command)
        except StageTimeoutError:
            return f"{name}: stopped at its time limit"
        if result.status == 0:
            return None
        wrong = re.findall(r"^FAILED.*", result.output, re.MULTILINE) or [result.reason()]
        return f"{name}: {len(wrong)} wrong, first {wrong[0]}"

    not_compiled = compilation.failures()
    commands = driver_commands(stage.run, not_compiled)
    reasons = run_parallel(stage, [partial(failure, *item) for item in commands.items()], _WORKERS)
    failures = [*not_compiled.values(), *filter(None, reasons)]
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"right: {', '.join(commands)}")
