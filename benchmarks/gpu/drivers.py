"""The C++ drivers of the kernels, compiled by nvcc and run on the card: their results.

They are those of tests/cuda_on_host, where they run on a CPU.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import compile_steps
from stages import ROOT, LateError, Outcome, Run, Stage, require

FOLDER = ROOT / "tests" / "cuda_on_host" / "drivers"
# The one whose cases have planted faults, but for some.
FAULTS = "planted_faults"
# Compilers work beside the build and the tests, and behind them.
_NICE = ["nice", "-n", "10"]
_SIDE_BY_SIDE = 4


def fault_cases() -> dict[str, bool]:
    """The names of its cases, and whether they have a fault."""
    source = (FOLDER / f"{FAULTS}.cu").read_text()
    cases = re.findall(r'\{"([^"]+)", \w+<Fault::(\w+)>\}', source)
    return {name: fault != "kNone" for name, fault in cases}


def executable(run: Run, name: str) -> Path:
    return run.work / f"driver_{name}"


def sound_commands(run: Run) -> dict[str, list[object]]:
    """How each driver runs that was compiled, without the faults."""
    names = sorted(path.stem for path in FOLDER.glob("*.cu"))
    commands: dict[str, list[object]] = {name: [executable(run, name)] for name in names}
    commands[FAULTS] += [name for name, faulty in fault_cases().items() if not faulty]
    return {name: command for name, command in commands.items() if command[0].is_file()}


def side_by_side(calls: Iterable[Callable[[], object]], workers: int) -> list:
    with ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


class Compilation:
    """Compiles all drivers, from now on and in the background."""

    def __init__(self, run: Run, limit: float, wanted: bool) -> None:
        self.run = run
        self.limit = limit
        self._steps = run.work / "drivers.steps"
        self._stage = Stage(run, "compile", limit)
        names = sorted(path.stem for path in FOLDER.glob("*.cu")) if wanted and shutil.which("nvcc") else []
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._compiled = {name: pool.submit(self._compile, name) for name in names}
        pool.shutdown(wait=False)

    def _compile(self, name: str) -> str | None:
        """Why it failed; None if it did not."""
        made = executable(self.run, name)
        made.unlink(missing_ok=True)
        flags = ["-std=c++20", "-O2", "--expt-relaxed-constexpr", "-lineinfo"]
        flags += [f"-arch=sm_{self.run.architecture.replace('.', '')}"]
        flags += ["-I", ROOT / "csrc", "-I", ROOT / "tests" / "cuda_on_host"]
        nvcc = compile_steps.noted("nvcc", self._steps)
        try:
            result = self._stage.command(
                *_NICE, *self.run.for_device([nvcc, *flags, FOLDER / f"{name}.cu", "-o", made])
            )
        except LateError:
            return f"{name} was not compiled within {self.limit:.0f} s"
        return None if result.status == 0 else f"{name} does not compile: {result.reason()}"

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
        return list(compile_steps.steps(self._steps).values())

    def failures(self) -> list[str]:
        reasons = (future.result() for future in self._compiled.values())
        return [reason for reason in reasons if reason is not None]


def drivers(stage: Stage, compilation: Compilation) -> Outcome:
    """Runs those that were compiled, without any tool."""
    require("nvcc")

    def reason(name: str, command: list[object]) -> str | None:
        try:
            result = stage.command(*command)
        except LateError:
            return f"{name}: not done in its time"
        if result.status == 0:
            return None
        wrong = re.findall(r"^FAILED.*", result.output, re.MULTILINE) or [result.reason()]
        return f"{name}: {len(wrong)} wrong, first {wrong[0]}"

    commands = sound_commands(stage.run)
    reasons = side_by_side((partial(reason, *item) for item in commands.items()), _SIDE_BY_SIDE)
    failures = [*compilation.failures(), *filter(None, reasons)]
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"right: {', '.join(commands)}")
