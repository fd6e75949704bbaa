"""`make gpu REHEARSAL=1`: the gpu command with stand-ins for the device."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pretend_cuda
import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "gpu"

pytestmark = pytest.mark.skipif(pretend_cuda.missing() is not None, reason=str(pretend_cuda.missing()))


def gpu_command(*options, **environment):
    return subprocess.run(
        [sys.executable, FOLDER, "--rehearsal", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def results_of(folder):
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text())


def test_rehearsal_of_the_benchmarks(tmp_path):
    done = gpu_command("--only", "bench", "--work", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = results_of(tmp_path)
    assert results["rehearsal"] is True
    assert [(stage["stage"], stage["state"]) for stage in results["stages"]] == [("bench", "ok")]
    ours = [row for row in results["rows"] if row["contender"] == "crnn_ext"]
    assert {row["op"] for row in ours} == {
        "ctc_loss",
        "greedy_decode",
        "align",
        "beam_search",
        "log_probability",
        "one sample",
    }
    assert all(row["eager ms"] > 0 and row["graph ms"] > 0 for row in ours)
    assert all(row["correct"] for row in ours if row["op"] != "one sample")
    table = done.stdout[done.stdout.index("REHEARSAL") :]
    assert {aim["state"] for aim in results["aims"]} == {"not judged"}
    titles = (
        "ctc_loss, forward",
        "greedy_decode",
        "beam_search",
        "align (T",
        "log_probability of",
        "best path",
        "Aims",
        "Stages",
    )
    for title in titles:
        assert title in table
    assert table.strip().splitlines()[-1].startswith("REHEARSAL")


def test_a_run_that_is_killed_leaves_what_it_had_and_a_part_goes_on_with_it(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvcc").write_text('#!/bin/sh\n[ "$1" = --version ] && echo release 1.2\n')
    (programs / "nvcc").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    options = ["--rehearsal", "--only", "bench", "--work", tmp_path]
    process = subprocess.Popen(
        [sys.executable, FOLDER, *options], env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        if list(tmp_path.glob("*.json")) and results_of(tmp_path)["rows"]:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait() == -signal.SIGKILL
    killed = results_of(tmp_path)
    assert [(stage["stage"], stage["state"]) for stage in killed["stages"]] == [("bench", "unfinished")]
    assert killed["machine"]["torch"] == torch.__version__
    assert killed["rows"][0]["op"] == "copy"

    # Another stage, for which this nvcc compiles nothing, joins what is there.
    done = gpu_command("--only", "sanitizer", "--work", tmp_path, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    both = results_of(tmp_path)
    assert [(stage["stage"], stage["state"]) for stage in both["stages"]] == [
        ("bench", "unfinished"),
        ("sanitizer", "not available"),
    ]
    assert both["rows"] == killed["rows"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import stages

    return stages.Run({"compute capability": "9.0"}, tmp_path, rehearsal=True)


def test_rehearsal_of_the_tests(run):
    import suite

    stage = suite.Stage(run, "tests", 60)
    assert suite.run_tests(stage, [ROOT / "tests" / "test_decoder.py"]) == ("ok", "1 passed")


def test_rehearsal_of_a_driver_and_the_tools(run, monkeypatch):
    """The host's builds find all planted faults, through the code that asks compute-sanitizer on a GPU."""
    import drivers
    import sanitizer

    nvcc = run.work / "nvcc"
    nvcc.write_text("#!/bin/sh\nexit 0\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{run.work}:{os.environ['PATH']}")
    monkeypatch.setattr(drivers, "FOLDER", tmp_folder := run.work / "drivers")
    tmp_folder.mkdir()
    planted = f"{drivers.FAULTS}.cu"
    (tmp_folder / planted).write_text((ROOT / "tests/cuda_on_host/drivers" / planted).read_text())
    compilation = drivers.Compilation(run, limit=60, wanted=True)
    compilation.wait()
    assert compilation.failures() == []
    assert len(compilation.seconds()) == 1
    assert drivers.drivers(drivers.Stage(run, "drivers", 60), compilation) == ("ok", "right: planted_faults")

    outcome = sanitizer.sanitizer(drivers.Stage(run, "sanitizer", 60), compilation)
    faults = sum(drivers.fault_cases().values())
    assert outcome == (
        "ok",
        f"clean: planted_faults; {faults} of {faults} planted faults reported",
    )
