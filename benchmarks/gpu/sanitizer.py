"""The C++ drivers of the kernels, on a GPU: their results, and what compute-sanitizer sees in them.

They are those of tests/cuda_on_host, where they run on a CPU. One of them holds planted faults, and there it
is the tools that are tested: a fault that none of them reports is something to know, not a failure.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stages import ROOT, LateError, NotAvailableError, Outcome, Run

DRIVERS = ROOT / "tests" / "cuda_on_host" / "drivers"
FAULTS = "planted_faults"
TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
_REPORTED = 86  # an exit status that no driver has
_SIDE_BY_SIDE = 8
# A fault in a barrier can stop a kernel for good.
_FAULT_SECONDS = 15


def fault_cases() -> dict[str, bool]:
    """The names of its cases, and whether they have a fault."""
    source = (DRIVERS / f"{FAULTS}.cu").read_text()
    cases = re.findall(r'\{"([^"]+)", \w+<Fault::(\w+)>\}', source)
    return {name: fault != "kNone" for name, fault in cases}


def _names() -> list[str]:
    names = sorted(path.stem for path in DRIVERS.glob("*.cu"))
    if not names:
        raise NotAvailableError(f"no drivers in {DRIVERS.relative_to(ROOT)}")
    return names


def _executable(run: Run, name: str) -> Path:
    return run.work / f"driver_{name}"


def _side_by_side(calls: Iterable[Callable[[], object]]) -> list:
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def _sound_commands(run: Run) -> dict[str, list[object]]:
    commands: dict[str, list[object]] = {
        name: [_executable(run, name)] for name in _names() if name != FAULTS
    }
    if (DRIVERS / f"{FAULTS}.cu").is_file():
        sound = [name for name, faulty in fault_cases().items() if not faulty]
        commands[FAULTS] = [_executable(run, FAULTS), *sound]
    return {name: command for name, command in commands.items() if command[0].is_file()}


def drivers(run: Run) -> Outcome:
    """Compiles them for the card and runs them without any tool."""
    if shutil.which("nvcc") is None:
        raise NotAvailableError("nvcc is not on PATH")
    flags = ["-std=c++20", "-O2", "--expt-relaxed-constexpr", "-lineinfo"]
    flags += [f"-arch=sm_{run.architecture.replace('.', '')}"]
    flags += ["-I", ROOT / "csrc", "-I", ROOT / "tests" / "cuda_on_host"]

    def compiled(name: str) -> bool:
        _executable(run, name).unlink(missing_ok=True)
        source = DRIVERS / f"{name}.cu"
        return run.command("nvcc", *flags, source, "-o", _executable(run, name)).status == 0

    names = _names()
    failures = [
        f"{name} does not compile"
        for name, done in zip(names, _side_by_side(partial(compiled, name) for name in names), strict=True)
        if not done
    ]
    if run.dry_run:
        return Outcome("failed" if failures else "ok", "; ".join(failures) or f"compiled: {', '.join(names)}")
    for name, command in _sound_commands(run).items():
        result = run.command(*command)
        if result.status != 0:
            wrong = re.findall(r"^FAILED.*", result.output, re.MULTILINE) or [f"status {result.status}"]
            failures.append(f"{name}: {len(wrong)} wrong, first {wrong[0]}")
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"right: {', '.join(names)}")


def _under(run: Run, tool: str, command: list[object], limit: float = float("inf")) -> str:
    """ "clean", "reported", "wrong" (the driver found its results wrong) or "stopped"."""
    options = ["--tool", tool, "--error-exitcode", _REPORTED]
    try:
        result = run.command("compute-sanitizer", *options, *command, limit=limit)
    except LateError:
        return "stopped"
    if "SUMMARY" not in result.output:
        raise NotAvailableError(f"compute-sanitizer does not work here: {result.reason()}")
    return {0: "clean", _REPORTED: "reported"}.get(result.status, "wrong")


def sanitized(run: Run) -> Outcome:
    """Every driver, and every planted fault, under every tool."""
    if shutil.which("compute-sanitizer") is None:
        raise NotAvailableError("compute-sanitizer is not on PATH")
    if run.dry_run:
        raise NotAvailableError("there is no GPU to watch")
    commands = _sound_commands(run)
    if not commands:
        raise NotAvailableError("no driver was compiled")
    sound = [(tool, name) for name in commands for tool in TOOLS]
    faults = [name for name, faulty in fault_cases().items() if faulty] if FAULTS in commands else []
    planted = [(tool, name) for name in faults for tool in TOOLS]
    calls = [partial(_under, run, tool, commands[name]) for tool, name in sound]
    calls += [
        partial(_under, run, tool, [_executable(run, FAULTS), name], _FAULT_SECONDS) for tool, name in planted
    ]
    verdicts = dict(zip([*sound, *planted], _side_by_side(calls), strict=True))

    bad = [
        f"{name} under {tool}: {verdicts[tool, name]}"
        for tool, name in sound
        if verdicts[tool, name] != "clean"
    ]
    missed = []
    for name in faults:
        seen = {tool: verdicts[tool, name] for tool in TOOLS}
        if "reported" not in seen.values():
            others = sorted({verdict for verdict in seen.values() if verdict != "clean"})
            missed.append(name + (f" ({', '.join(others)})" if others else ""))
    parts = [*bad] or [f"clean: {', '.join(commands)}"]
    if faults:
        parts.append(f"{len(faults) - len(missed)} of {len(faults)} planted faults reported")
    if missed:
        parts.append(f"by no tool: {', '.join(missed)}")
    return Outcome("failed" if bad else "ok", "; ".join(parts))
