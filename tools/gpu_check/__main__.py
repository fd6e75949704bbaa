"""Builds for the GPU that is here, runs everything that only a GPU can show, and reports.

    make gpu                    # or: python benchmarks/gpu
    make gpu ONLY=tests,bench   # some stages; the build is always brought up to date first
    make gpu REHEARSAL=1        # without a GPU: the same, with stand-ins for the device

It needs no network; it builds the libraries in place, for this card, and installs nothing else outside
build/gpu. Each stage ends at its own limit, whether or not others failed: less than 9 minutes in all. Results
are in benchmarks/results/<device>-<date>.json, or in the folder that --results names, written as they come: a
run that is cut off leaves what it had, and a part of a run resumes the day's file. What the stages print is
in build/gpu/*.log. The table comes last.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import report
import suite
from bench import bench, rows_of
from compile_times import limit_problem
from drivers import Compilation, drivers
from results import UNFINISHED, Results
from rows import Row
from sanitizer import sanitizer
from stages import (
    REHEARSAL_TIME_FACTOR,
    ROOT,
    Outcome,
    Run,
    Stage,
    exit_on_sigterm,
    python_path,
    run_stage,
    search_path,
)

MACHINE_SECONDS = 60
# Seconds that each stage may take, for a machine of 16 cores. First comes what shows whether anything works,
# last compute-sanitizer, whose duration is unknown.
LIMITS = {"build": 120, "tests": 120, "drivers": 30, "bench": 125, "sanitizer": 60}
# The drivers compile in the background of these stages; the others wait, and nothing disturbs the benchmarks.
BESIDE_COMPILERS = ("build", "tests")
COMPILE_SECONDS = 200
# What has to be there on a machine with a GPU.
REQUIRED = ("build", "tests", "drivers")


def described(rehearsal: bool) -> dict[str, object]:
    command = [
        sys.executable,
        str(Path(__file__).with_name("machine.py")),
        *(["--rehearsal"] if rehearsal else []),
    ]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    limit = MACHINE_SECONDS * (REHEARSAL_TIME_FACTOR if rehearsal else 1)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"torch has not found within {limit} s which GPU is here") from None
    if done.returncode != 0:
        raise SystemExit(f"this machine cannot be described:\n{done.stderr}")
    machine = json.loads(done.stdout.splitlines()[-1])
    if "device" not in machine:
        build = f"torch {machine['torch']} in {sys.executable}"
        reason = "sees no GPU" if machine["torch's CUDA"] else "is a build for the CPU"
        raise SystemExit(
            f"make gpu needs a GPU that torch can use, and {build} {reason}; "
            "make gpu VENV=0 PYTHON=python3 takes another Python, and make gpu REHEARSAL=1 tries all else"
        )
    return machine


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearsal", action="store_true", help="with stand-ins for the device")
    parser.add_argument("--only", metavar="STAGES", default="", help=f"some of {','.join(LIMITS)}")
    parser.add_argument("--work", type=Path, help="folder of logs and of what is built (build/gpu)")
    parser.add_argument("--results", type=Path, help="folder of the results (benchmarks/results)")
    options = parser.parse_args()
    chosen = set(options.only.split(",")) if options.only else set(LIMITS)
    if unknown := chosen - set(LIMITS):
        parser.error(f"--only knows {', '.join(LIMITS)}, and not {', '.join(sorted(unknown))}")
    if not options.rehearsal:
        chosen.add("build")  # what is there may be older than the sources, and takes seconds if it is not
    options.stages = [name for name in LIMITS if name in chosen]
    folder = ROOT / "build" / ("gpu-rehearsal" if options.rehearsal else "gpu")
    options.work = (options.work or folder).resolve()
    results = options.work if options.rehearsal else ROOT / "benchmarks" / "results"
    options.results = (options.results or results).resolve()
    return options


def run_stages(run: Run, names: list[str], results: Results) -> None:
    of_drivers = {"drivers", "sanitizer"}
    compilation = Compilation(run, COMPILE_SECONDS, wanted=not of_drivers.isdisjoint(names))
    functions = {
        "build": suite.build,
        "tests": suite.tests,
        "drivers": partial(drivers, compilation=compilation),
        "bench": bench,
        "sanitizer": partial(sanitizer, compilation=compilation),
    }
    try:
        for name in names:
            print(f"{name} ...", flush=True)
            if name not in BESIDE_COMPILERS:
                compilation.wait()
            run_and_record(run, name, functions[name], results, compilation)
    finally:
        compilation.stop()


def run_and_record(
    run: Run, name: str, function: Callable[[Stage], Outcome], results: Results, compilation: Compilation
) -> None:
    """Its outcome, and before that what is known of it, is in the file of results."""
    begin = time.monotonic()

    def keep(stage: Stage, state: str, detail: str) -> None:
        entry = {"stage": name, "state": state, "detail": detail, "seconds": time.monotonic() - begin}
        results.put_stage(entry, order=list(LIMITS))
        if name == "tests":
            results.content["tests"] = suite.Tests(stage.notes, run.rehearsal).not_passed()
        if name == "bench":
            results.put_rows(rows_of(stage))
            results.content["aims"] = [aim._asdict() for aim in reached(results.rows, run)]
        results.write()

    stage = Stage(run, name, LIMITS[name], on_progress=lambda stage, detail: keep(stage, UNFINISHED, detail))
    stage.report_progress("just begun")
    outcome = run_stage(stage, function)
    if run.rehearsal and (reason := not_realistic(name, run, compilation)):
        outcome = Outcome("failed", f"{outcome.detail}; {reason}")
    keep(stage, *outcome)
    print(f"{name}: {outcome.state}, {time.monotonic() - begin:.0f} s", flush=True)
    if outcome.state == "failed":
        print(stage.last_lines(15))


def not_realistic(name: str, run: Run, compilation: Compilation) -> str | None:
    """Why compilers cannot end within the limit of a stage on the machine that it is for."""
    of_build = suite.compiled(run)
    if name == "build":
        return limit_problem(LIMITS[name], of_build)
    if name == "drivers":
        return limit_problem(COMPILE_SECONDS, compilation.seconds(), beside=sum(of_build))
    return None


def main() -> int:
    options = parsed()
    exit_on_sigterm()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = search_path()
    machine = described(options.rehearsal)
    run = Run(machine, options.work, options.rehearsal)
    today = datetime.date.today().isoformat()
    results = Results.of(options.results, machine, today, run.rehearsal, resumes=bool(options.only))
    print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n")

    run_stages(run, options.stages, results)
    print_table(results, run)
    ended = {stage["stage"]: stage["state"] for stage in results.stages if stage["stage"] in options.stages}
    return 1 if any(is_failure(name, state, run) for name, state in ended.items()) else 0


def is_failure(stage: str, state: str, run: Run) -> bool:
    """Also what is not available where a GPU is: nothing was shown then."""
    return state == "failed" or (state == "not available" and stage in REQUIRED and not run.rehearsal)


def reached(rows: list[Row], run: Run) -> list[report.Aim]:
    aims = list(report.aims(rows))
    return [aim._replace(state="not judged") for aim in aims] if run.rehearsal else aims


def print_table(results: Results, run: Run) -> None:
    """The table of all that the file of results has."""
    machine, rows = run.machine, results.rows
    mark = "\nREHEARSAL: no GPU was used, and none of these times means anything" if run.rehearsal else ""
    print(mark)
    print(f"{machine['device']}, driver {machine.get('driver')}, torch {machine['torch']}", end="")
    copies = [row["GB/s"] for row in rows if row["op"] == "copy"]
    print(*(f", copy {bandwidth:.0f} GB/s (read + written)" for bandwidth in copies))
    print(*report.table(rows, reached(rows, run)), sep="\n")
    print("\nStages")
    for stage in results.stages:
        print(f"{stage['stage']}: {stage['state']}, {stage['seconds']:.0f} s: {stage['detail']}")
    print(f"results: {results.file}, logs: {run.work}{mark}")


if __name__ == "__main__":
    sys.exit(main())
