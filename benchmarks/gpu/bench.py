"""The benchmarks: each group in a process of its own, which appends its rows to a file as they come."""

import json
from pathlib import Path

import report
from rows import GROUP_SECONDS, Row
from stages import LateError, Outcome, Run, Stage


def rows_file(run: Run) -> Path:
    return run.work / "rows.jsonl"


def rows_of(run: Run) -> list[Row]:
    """Those that are complete."""
    if not rows_file(run).is_file():
        return []
    return [json.loads(line) for line in rows_file(run).read_text().splitlines() if line.endswith("}")]


def bench(stage: Stage) -> Outcome:
    """Every group, also after one that failed."""
    run = stage.run
    rows_file(run).unlink(missing_ok=True)
    failures = []
    reserved = sum(GROUP_SECONDS.values())
    for group, seconds in GROUP_SECONDS.items():
        reserved -= seconds
        try:
            result = stage.python(
                "benchmarks/gpu/measure.py",
                group,
                rows_file(run),
                *(["--rehearsal"] if run.rehearsal else []),
                limit=stage.seconds_left() - reserved,
                meanwhile=lambda: f"{len(rows_of(run))} rows",
                # Without it JAX takes most of the card's memory at once.
                XLA_PYTHON_CLIENT_PREALLOCATE="false",
            )
        except LateError as late:
            failures.append(f"{group}: {late}")
            continue
        if result.status != 0:
            failures.append(f"{group}: {result.reason()}")
        stage.tell(f"{len(rows_of(run))} rows")
    failures += report.wrong(rows_of(run))
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"{len(rows_of(run))} rows")
