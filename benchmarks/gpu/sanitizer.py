"""What compute-sanitizer sees in the drivers of the kernels.

One of them holds planted faults, and there it is the tools that are tested: a fault that none of them reports
is something to know, not a failure.
"""

import re
from collections.abc import Iterable
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
    cases = fault_cases() if FAULTS in commands else {}
    faults = [name for name, faulty in cases.items() if faulty]
    verdicts: dict[tuple[str, str], str] = {}

    def watch(name: str, tool: str, command: list[object], limit: float = float("inf")) -> None:
        verdicts[name, tool] = _under(stage, tool, command, limit)
        stage.tell(f"{len(verdicts)} of {len(calls)} done; {_said(dict(verdicts), commands, faults)}")

    calls = [partial(watch, name, tool, commands[name]) for tool in TOOLS for name in commands]
    limit = _FAULT_SECONDS * run.patience
    calls += [
        partial(watch, fault, tool, [executable(run, FAULTS), fault], limit)
        for fault in faults
        for tool in TOOLS
    ]
    side_by_side(calls, _SIDE_BY_SIDE)
    sound = all(verdicts[name, tool] == "clean" for name in commands for tool in TOOLS)
    return Outcome("ok" if sound else "failed", _said(verdicts, commands, faults))


def _said(verdicts: dict[tuple[str, str], str], commands: Iterable[str], faults: list[str]) -> str:
    """What {(driver or fault, tool): verdict} comes to."""

    def of(name: str) -> dict[str, str]:
        return {tool: verdicts[name, tool] for tool in TOOLS if (name, tool) in verdicts}

    parts = [
        f"{name} under {tool}: {verdict}"
        for name in commands
        for tool, verdict in of(name).items()
        if verdict != "clean"
    ] or [f"clean: {', '.join(commands)}"]
    watched = [fault for fault in faults if len(of(fault)) == len(TOOLS)]
    missed = [fault for fault in watched if "reported" not in of(fault).values()]
    if watched:
        parts.append(f"{len(watched) - len(missed)} of {len(faults)} planted faults reported")
    if missed:
        others = {fault: ", ".join(sorted({*of(fault).values()} - {"clean"})) for fault in missed}
        parts.append(
            "by no tool: " + ", ".join(f"{fault} ({how})" if how else fault for fault, how in others.items())
        )
    return "; ".join(parts)
