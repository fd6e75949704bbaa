"""The sanitizer stage: the drivers under the tools of compute-sanitizer.

The driver with planted faults tests the tools: a fault that no tool reports is part of the results, but not a
failure.
"""

import re
import shutil
from collections.abc import Collection
from functools import partial

from drivers import FAULTS, Compilation, driver_commands, executable, fault_cases
from stages import NotAvailableError, Outcome, Stage, StageTimeoutError, run_parallel

TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
_WORKERS = 8
# A fault in a barrier can make a kernel hang.
_FAULT_SECONDS = 10
_SUMMARY = re.compile(r"SUMMARY: (\d+) (?:errors?|hazards?)")

# The verdicts on a command are "clean", these failures, "hangs" (stopped at its own limit) and "not done"
# (the stage was out of time). "wrong": the driver found wrong results.
_FAILURES = {"reported", "wrong", "no summary"}
_NOT_DONE = "not done"


def _run_tool(stage: Stage, tool: str, command: list[object], limit: float) -> tuple[str, str]:
    """Returns the verdict, and the reason for "no summary"."""
    if stage.seconds_left() <= 0:
        return _NOT_DONE, ""
    try:
        result = stage.command(
            *stage.run.for_device(["compute-sanitizer", "--tool", tool, *command]), limit=limit
        )
    except StageTimeoutError:
        return (_NOT_DONE if stage.seconds_left() <= 0 else "hangs"), ""
    # The exit status is the driver's, which also fails if the tool ends its kernel.
    counts = _SUMMARY.findall(result.output)
    if not counts:
        return "no summary", result.reason()
    if any(map(int, counts)):
        return "reported", ""
    return ("clean" if result.status == 0 else "wrong"), ""


def sanitizer(stage: Stage, compilation: Compilation) -> Outcome:
    """Runs every driver and every planted fault under every tool, first all drivers under memcheck."""
    run = stage.run
    if not run.rehearsal and shutil.which("compute-sanitizer") is None:
        raise NotAvailableError("compute-sanitizer is not on PATH")
    not_compiled = compilation.failures()
    commands = driver_commands(run, not_compiled)
    if not commands:
        raise NotAvailableError("; ".join(["no driver was compiled", *not_compiled.values()]))
    faults = fault_cases() if FAULTS in commands else []
    verdicts: dict[tuple[str, str], str] = {}
    reasons: list[str] = []

    def check(name: str, tool: str, command: list[object], limit: float = float("inf")) -> None:
        verdict, reason = _run_tool(stage, tool, command, limit)
        if reason:
            reasons.append(reason)
        verdicts[name, tool] = verdict
        progress = summary(dict(verdicts), commands, faults)
        stage.report_progress(f"{len(verdicts)} of {len(calls)} done; {progress}")

    calls = [partial(check, name, tool, commands[name]) for tool in TOOLS for name in commands]
    limit = _FAULT_SECONDS * run.time_factor
    calls += [
        partial(check, fault, tool, [executable(run, FAULTS), fault], limit)
        for fault in faults
        for tool in TOOLS
    ]
    run_parallel(stage, calls, _WORKERS)
    known = set(verdicts.values())
    if reasons and known <= {"no summary", "hangs", _NOT_DONE}:
        raise NotAvailableError(f"compute-sanitizer does not work here: {reasons[0]}")
    of_drivers = {verdicts[name, tool] for name in commands for tool in TOOLS}
    detail = "; ".join([*not_compiled.values(), summary(verdicts, commands, faults)])
    if not_compiled or of_drivers & _FAILURES:
        return Outcome("failed", detail)
    return Outcome("unfinished" if _NOT_DONE in known else "ok", detail)


def summary(verdicts: dict[tuple[str, str], str], commands: Collection[str], faults: list[str]) -> str:
    """Summarizes {(driver or fault, tool): verdict}."""

    def of(name: str) -> dict[str, str]:
        known = {tool: verdicts.get((name, tool), _NOT_DONE) for tool in TOOLS}
        return {tool: verdict for tool, verdict in known.items() if verdict != _NOT_DONE}

    parts = [
        f"{name} under {tool}: {verdict}"
        for name in commands
        for tool, verdict in of(name).items()
        if verdict != "clean"
    ]
    done = {tool: sum(tool in of(name) for name in commands) for tool in TOOLS}
    if set(done.values()) != {len(commands)}:
        parts.append(f"of {len(commands)} drivers, " + ", ".join(f"{tool} {n}" for tool, n in done.items()))
    elif not parts:
        parts.append(f"clean: {', '.join(commands)}")
    reported = [fault for fault in faults if "reported" in of(fault).values()]
    missed = [fault for fault in faults if len(of(fault)) == len(TOOLS) and fault not in reported]
    not_done = len(faults) - len(reported) - len(missed)
    if reported or missed:
        parts.append(f"{len(reported)} of {len(faults)} planted faults reported")
    if not_done:
        parts.append(f"{not_done} planted faults not done")
    if missed:
        others = {fault: ", ".join(sorted({*of(fault).values()} - {"clean"})) for fault in missed}
        parts.append(
            "by no tool: " + ", ".join(f"{fault} ({how})" if how else fault for fault, how in others.items())
        )
    return "; ".join(parts)
