"""What compute-sanitizer sees in the drivers of the kernels.

One of them holds planted faults, and there it is the tools that are tested: a fault that none of them reports
is something to know, not a failure.
"""

import re
from functools import partial

from drivers import FAULTS, Compilation, executable, fault_cases, side_by_side, sound_commands
from stages import LateError, NotAvailableError, Outcome, Stage, require

TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
_SIDE_BY_SIDE = 8
# A fault in a barrier can stop a kernel for good.
_FAULT_SECONDS = 10
_SUMMARY = re.compile(r"SUMMARY: (\d+) (?:errors?|hazards?)")


def _under(stage: Stage, tool: str, command: list[object], limit: float = float("inf")) -> str:
    """ "clean", "reported", "wrong" (the driver found its results wrong) or "stopped"."""
    if stage.seconds_left() <= 0:
        return "stopped"
    watched = stage.run.for_device(["compute-sanitizer", "--tool", tool, *command])
    try:
        result = stage.command(*watched, limit=limit)
    except LateError:
        return "stopped"
    # Not the exit status: that is the driver's, which also fails where a tool has ended its kernel.
    counts = _SUMMARY.findall(result.output)
    if not counts:
        raise NotAvailableError(f"compute-sanitizer does not work here: {result.reason()}")
    if any(map(int, counts)):
        return "reported"
    return "clean" if result.status == 0 else "wrong"


def sanitizer(stage: Stage, compilation: Compilation) -> Outcome:
    """Every driver, and every planted fault, under every tool."""
    run = stage.run
    if not run.rehearsal:
        require("compute-sanitizer")
    commands = sound_commands(run)
    if not commands:
        raise NotAvailableError("; ".join(["no driver was compiled", *compilation.failures()]))
    sound = [(tool, name) for tool in TOOLS for name in commands]
    faults = [name for name, faulty in fault_cases().items() if faulty] if FAULTS in commands else []
    planted = [(tool, name) for name in faults for tool in TOOLS]
    calls = [partial(_under, stage, tool, commands[name]) for tool, name in sound]
    calls += [
        partial(_under, stage, tool, [executable(run, FAULTS), name], _FAULT_SECONDS)
        for tool, name in planted
    ]
    verdicts = dict(zip([*sound, *planted], side_by_side(calls, _SIDE_BY_SIDE), strict=True))

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
