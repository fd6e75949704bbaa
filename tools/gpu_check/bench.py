"""The benchmarks: each group in a process of its own, which appends its rows to a file as they come."""

import json

import report
from rows import GROUP_SECONDS, Row
from stages import Outcome, Stage, StageTimeoutError


def rows_of(stage: Stage) -> list[Row]:
    """Those that are complete."""
    lines = stage.notes.read_text().splitlines() if stage.notes.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def bench(stage: Stage) -> Outcome:
    """Every group, also after one that failed."""
    failures = []
    reserved = sum(GROUP_SECONDS.values())
    for group, seconds in GROUP_SECONDS.items():
        reserved -= seconds
        try:
            result = stage.python(
                "benchmarks/gpu/measure.py",
                group,
                stage.notes,
                *(["--rehearsal"] if stage.run.rehearsal else []),
                limit=stage.seconds_left() - reserved,
                meanwhile=lambda: f"{len(rows_of(stage))} rows",
                # Without it JAX takes most of the card's memory at once.
                XLA_PYTHON_CLIENT_PREALLOCATE="false",
            )
        except StageTimeoutError as late:
            failures.append(f"{group}: {late}")
            continue
        if result.status != 0:
            failures.append(f"{group}: {result.reason()}")
        stage.report_progress(f"{len(rows_of(stage))} rows")
    failures += report.wrong(rows_of(stage))
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"{len(rows_of(stage))} rows")
