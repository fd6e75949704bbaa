"""Build for this GPU, run everything that needs a GPU, and report.

    make gpu                    # or: python tools/gpu_check
    make gpu ONLY=tests,bench   # some stages, after bringing the build up to date
    make gpu REHEARSAL=1        # the same without a GPU, with stand-ins for the device

Needs no network. Builds the libraries in place for this GPU, and installs nothing else outside build/gpu.
Each stage has its own time limit, whether or not others fail; the total is less than 9 minutes. The results
file is benchmarks/results/<device>-<date>.json, or in the folder given by --results. It is updated during the
run, so that an interrupted run leaves its results; a run of some stages resumes the file of the day. The
output of the stages is in build/gpu/*.log. A table ends the run.
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
from bench import bench, read_rows
from build_stage import build, compile_seconds
from compile_times import limit_problem
from drivers import Compilation, drivers
from results import UNFINISHED, Results
from rows import Row
from sanitizer import sanitizer
from stages import (
    HERE,
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
from tests_stage import CudaResults, tests

MACHINE_SECONDS = 60
# Time limits for a machine with 16 cores. The first stages show whether anything works; the duration of the
# last one is unknown.
LIMITS = {"build": 120, "tests": 120, "drivers": 30, "bench": 125, "sanitizer": 60}
# Stages that run while the drivers compile. The others wait, to measure without other load.
BESIDE_COMPILERS = ("build", "tests")
COMPILE_SECONDS = 200
# Stages that must be available on a machine with a GPU.
REQUIRED = ("build", "tests", "drivers")


def describe_machine(rehearsal: bool) -> dict[str, object]:
    command = [sys.executable, str(HERE / "machine.py"), *(["--rehearsal"] if rehearsal else [])]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    limit = MACHINE_SECONDS * (REHEARSAL_TIME_FACTOR if rehearsal else 1)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"torch did not find the GPU within {limit} s") from None
    if done.returncode != 0:
        raise SystemExit(f"cannot describe this machine:\n{done.stderr}")
    machine = json.loads(done.stdout.splitlines()[-1])
    if "device" not in machine:
        reason = "sees no GPU" if machine["torch's CUDA"] else "is a CPU build"
        raise SystemExit(
            f"make gpu needs a GPU, but torch {machine['torch']} in {sys.executable} {reason}; "
            "try another Python with make gpu VENV=0 PYTHON=python3, or rehearse with make gpu REHEARSAL=1"
        )
    return machine


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearsal", action="store_true", help="run without a GPU, with stand-ins")
    parser.add_argument("--only", metavar="STAGES", default="", help=f"some of {','.join(LIMITS)}")
    parser.add_argument("--work", type=Path, help="folder of logs and builds (default: build/gpu)")
    parser.add_argument("--results", type=Path, help="results folder (default: benchmarks/results)")
    options = parser.parse_args()
    chosen = set(options.only.split(",")) if options.only else set(LIMITS)
    if unknown := chosen - set(LIMITS):
        parser.error(f"--only must be some of {', '.join(LIMITS)}, got {', '.join(sorted(unknown))}")
    if not options.rehearsal:
        chosen.add("build")  # takes seconds if it is up to date
    options.stages = [name for name in LIMITS if name in chosen]
    folder = ROOT / "build" / ("gpu-rehearsal" if options.rehearsal else "gpu")
    options.work = (options.work or folder).resolve()
    results = options.work if options.rehearsal else ROOT / "benchmarks" / "results"
    options.results = (options.results or results).resolve()
    return options


def run_stages(run: Run, names: list[str], results: Results) -> None:
    wanted = not {"drivers", "sanitizer"}.isdisjoint(names)
    compilation = Compilation(run, COMPILE_SECONDS, wanted)
    functions = {
        "build": build,
        "tests": tests,
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
    """Runs a stage, and writes its progress and its outcome to the results file."""
    begin = time.monotonic()

    def record(stage: Stage, state: str, detail: str) -> None:
        entry = {"stage": name, "state": state, "detail": detail, "seconds": time.monotonic() - begin}
        results.put_stage(entry, order=list(LIMITS))
        if name == "tests":
            results.content["tests"] = CudaResults(stage.records, run.rehearsal).not_passed()
        if name == "bench":
            results.put_rows(read_rows(stage))
            results.content["aims"] = [aim._asdict() for aim in judge_aims(results.rows, run)]
        results.write()

    stage = Stage(
        run, name, LIMITS[name], on_progress=lambda stage, detail: record(stage, UNFINISHED, detail)
    )
    stage.report_progress("started")
    outcome = run_stage(stage, function)
    if run.rehearsal and (problem := unrealistic_limit(name, run, compilation)):
        outcome = Outcome("failed", f"{outcome.detail}; {problem}")
    record(stage, *outcome)
    print(f"{name}: {outcome.state}, {time.monotonic() - begin:.0f} s", flush=True)
    if outcome.state == "failed":
        print(stage.last_lines(15))


def unrealistic_limit(name: str, run: Run, compilation: Compilation) -> str | None:
    """Returns why the compilers of a stage cannot finish within its limit on 16 cores, or None."""
    if name == "build":
        return limit_problem(LIMITS[name], compile_seconds(run))
    if name == "drivers":
        return limit_problem(COMPILE_SECONDS, compilation.seconds(), before=sum(compile_seconds(run)))
    return None


def main() -> int:
    options = parse_options()
    exit_on_sigterm()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = search_path()
    machine = describe_machine(options.rehearsal)
    run = Run(machine, options.work, options.rehearsal)
    today = datetime.date.today().isoformat()
    results = Results.open(options.results, machine, today, run.rehearsal, resumes=bool(options.only))
    print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n")

    run_stages(run, options.stages, results)
    print_table(results, run)
    ended = {stage["stage"]: stage["state"] for stage in results.stages if stage["stage"] in options.stages}
    return 1 if any(is_failure(name, state, run) for name, state in ended.items()) else 0


def is_failure(stage: str, state: str, run: Run) -> bool:
    """Returns whether a state fails the run. On a GPU machine, a required stage must be available."""
    return state == "failed" or (state == "not available" and stage in REQUIRED and not run.rehearsal)


def judge_aims(rows: list[Row], run: Run) -> list[report.Aim]:
    aims = list(report.aims(rows))
    return [aim._replace(state="not judged") for aim in aims] if run.rehearsal else aims


def print_table(results: Results, run: Run) -> None:
    """Prints everything in the results file."""
    machine, rows = run.machine, results.rows
    mark = "\nREHEARSAL: no GPU was used; the times are meaningless" if run.rehearsal else ""
    print(mark)
    print(f"{machine['device']}, driver {machine.get('driver')}, torch {machine['torch']}", end="")
    copies = [row["GB/s"] for row in rows if row["op"] == "copy"]
    print(*(f", copy {bandwidth:.0f} GB/s (read + written)" for bandwidth in copies))
    print(*report.table(rows, judge_aims(rows, run)), sep="\n")
    print("\nStages")
    for stage in results.stages:
        print(f"{stage['stage']}: {stage['state']}, {stage['seconds']:.0f} s: {stage['detail']}")
    print(f"results: {results.file}, logs: {run.work}{mark}")


if __name__ == "__main__":
    sys.exit(main())
