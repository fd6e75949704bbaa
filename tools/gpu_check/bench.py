"""The bench stage: each group of benchmarks runs in a process of its own."""

import json

import report
from rows import GROUP_SECONDS, Row
from stages import HERE, Outcome, Stage, StageTimeoutError


def read_rows(stage: Stage) -> list[Row]:
    """Returns the rows so far, without an incomplete last line."""
    lines = stage.records.read_text().splitlines() if stage.records.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def bench(stage: Stage) -> Outcome:
    """Runs every group, also after a failure."""
    failures = []
    reserved = sum(GROUP_SECONDS.values())
    for group, seconds in GROUP_SECONDS.items():
        reserved -= seconds
        try:
            result = stage.python(
                HERE / "measure.py",
                group,
                stage.records,
                *(["--rehearsal"] if stage.run.rehearsal else []),
                limit=stage.seconds_left() - reserved,
                progress=lambda: f"{len(read_rows(stage))} rows",
                # By default JAX allocates most of the GPU's memory.
                XLA_PYTHON_CLIENT_PREALLOCATE="false",
            )
        except StageTimeoutError as error:
            failures.append(f"{group}: {error}")
            continue
        if result.status != 0:
            failures.append(f"{group}: {result.reason()}")
        stage.report_progress(f"{len(read_rows(stage))} rows")
    failures += report.failures(read_rows(stage))
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"{len(read_rows(stage))} rows")
