"""Builds for the GPU that is here, runs everything that only a GPU can show, and reports.

    make gpu            # or: python benchmarks/gpu
    make gpu DRY=1      # without a GPU: the same as far as it goes, on tiny shapes and the CPU's clock

It installs nothing and needs no network. Stages run whether or not others failed, each within its own time.
What they print is in build/gpu/*.log, the results in benchmarks/results/<device>-<date>.json; the table comes
last.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import report
import sanitizer
import suite
from rows import GROUPS, Row
from stages import ROOT, LateError, Outcome, Run, perform, python_path, search_path

MACHINE_SECONDS = 60
# What a group of measurements leaves to each that comes after it, at the least.
GROUP_SECONDS = 20


def described(dry_run: bool) -> dict[str, object]:
    command = [
        sys.executable,
        str(Path(__file__).with_name("machine.py")),
        *(["--dry-run"] if dry_run else []),
    ]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=MACHINE_SECONDS
    )
    if done.returncode != 0:
        raise SystemExit(f"torch cannot say what GPU is here:\n{done.stderr}")
    machine = json.loads(done.stdout.splitlines()[-1])
    if "device" not in machine:
        build = f"torch {machine['torch']} in {sys.executable}"
        reason = "sees no GPU" if machine["torch's CUDA"] else "is a build for the CPU"
        raise SystemExit(
            f"make gpu needs a GPU that torch can use, and {build} {reason}; make gpu DRY=1 tries all else"
        )
    return machine


def rows_file(run: Run) -> Path:
    return run.work / "rows.jsonl"


def rows_of(run: Run) -> list[Row]:
    if not rows_file(run).is_file():
        return []
    return [json.loads(line) for line in rows_file(run).read_text().splitlines()]


def benchmarks(run: Run) -> Outcome:
    """Every group, also after one that failed."""
    rows_file(run).unlink(missing_ok=True)
    failures = []
    for later, group in zip(reversed(range(len(GROUPS))), GROUPS, strict=True):
        arguments = [
            "benchmarks/gpu/measure.py",
            group,
            rows_file(run),
            *(["--dry-run"] if run.dry_run else []),
        ]
        try:
            result = run.python(
                *arguments,
                limit=run.seconds_left() - later * GROUP_SECONDS,
                # Without it JAX takes most of the card's memory at once.
                XLA_PYTHON_CLIENT_PREALLOCATE="false",
            )
        except LateError as late:
            failures.append(f"{group}: {late}")
            continue
        if result.status != 0:
            failures.append(f"{group}: {result.reason()}")
    failures += report.wrong(rows_of(run))
    return Outcome("failed" if failures else "ok", "; ".join(failures) or f"{len(rows_of(run))} rows")


# Seconds that each may take: under 8 minutes in all.
STAGES = {
    "build": (suite.build, 80),
    "tests": (suite.tests, 155),
    "drivers": (sanitizer.drivers, 60),
    "sanitizer": (sanitizer.sanitized, 65),
    "benchmarks": (benchmarks, 110),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="do what can be done without a GPU")
    parser.add_argument("--only", metavar="STAGES", help=f"some of {','.join(STAGES)}")
    parser.add_argument("--work", type=Path, help="folder of logs and of what is built (build/gpu)")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(STAGES)
    if unknown := set(chosen) - set(STAGES):
        parser.error(f"--only knows {', '.join(STAGES)}, and not {', '.join(sorted(unknown))}")
    work = (options.work or ROOT / "build" / ("gpu-dry-run" if options.dry_run else "gpu")).resolve()
    os.environ["PATH"] = search_path()
    machine = described(options.dry_run)
    work.mkdir(parents=True, exist_ok=True)
    run = Run(machine, work, options.dry_run)
    print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n")
    stages = []
    for name in chosen:
        print(f"{name} ...", flush=True)
        begin = time.monotonic()
        outcome = perform(run, name, *STAGES[name])
        seconds = time.monotonic() - begin
        print(f"{name}: {outcome.state}, {seconds:.0f} s", flush=True)
        if outcome.state == "failed":
            print(run.last_lines(15))
        stages.append({"stage": name, **outcome._asdict(), "seconds": seconds})

    rows = rows_of(run) if "benchmarks" in chosen else []
    aims = list(report.aims(rows))
    if options.dry_run:
        aims = [aim._replace(state="not judged") for aim in aims]
    today = datetime.date.today().isoformat()
    results = {
        "dry run": options.dry_run,
        "date": today,
        "machine": machine,
        "stages": stages,
        "rows": rows,
        "aims": [aim._asdict() for aim in aims],
    }
    folder = work if options.dry_run else ROOT / "benchmarks" / "results"
    slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['device']}-{today}".lower())
    file = folder / f"{slug}.json"
    file.write_text(json.dumps(results, indent=1) + "\n")

    mark = "\nDRY RUN: no GPU was used, and none of these times means anything" if options.dry_run else ""
    print(mark)
    print(f"{machine['device']}, driver {machine.get('driver')}, torch {machine['torch']}", end="")
    copies = [row["GB/s"] for row in rows if row["op"] == "copy"]
    print(*(f", copy {bandwidth:.0f} GB/s (read + written)" for bandwidth in copies))
    print(*report.table(rows, aims), sep="\n")
    print("\nStages")
    for stage in stages:
        print(f"{stage['stage']}: {stage['state']}, {stage['seconds']:.0f} s: {stage['detail']}")
    print(f"results: {file}, logs: {work}{mark}")
    return 1 if any(stage["state"] == "failed" for stage in stages) else 0


if __name__ == "__main__":
    sys.exit(main())
