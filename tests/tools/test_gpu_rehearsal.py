"""`make gpu REHEARSAL=1`: `make gpu` with stand-ins for the GPU."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import drivers
import pretend_cuda
import pytest
import sanitizer
import torch
from helpers.gpu_command import FOLDER, gpu_command, toolkit
from helpers.paths import ROOT
from stages import Run, Stage
from tests_stage import CudaResults, run_tests

pytestmark = pytest.mark.skipif(
    pretend_cuda.unavailable_reason() is not None, reason=str(pretend_cuda.unavailable_reason())
)


def results_of(folder):
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text())


@pytest.mark.exhaustive
def test_rehearsal_of_the_benchmarks(tmp_path):
    options = ["--work", tmp_path / "work", "--results", tmp_path / "results"]
    done = gpu_command("--rehearsal", "--only", "bench", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    results = results_of(tmp_path / "results")
    assert results["rehearsal"] is True
    assert [(stage["stage"], stage["state"]) for stage in results["stages"]] == [("bench", "ok")]
    ours = [row for row in results["rows"] if row["contender"] == "crnn_ext"]
    assert {row["op"] for row in ours} >= {
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


def children_of(process):
    """Returns the processes that the main thread has started. Each leads a process group."""
    return list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def has_ended(number):
    """Returns whether a process has ended or is a zombie."""
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def running(tmp_path):
    """The command during its benchmarks, and the processes that run them."""
    home = toolkit(tmp_path / "toolkit", status=1)
    options = ["--rehearsal", "--only", "bench", "--work", tmp_path]
    process = subprocess.Popen(
        [sys.executable, FOLDER, *options],
        env={**os.environ, "CUDA_HOME": home},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (list(tmp_path.glob("*.json")) and results_of(tmp_path)["rows"]):
        time.sleep(0.05)
    assert process.poll() is None
    children = children_of(process)
    yield process, children
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    process.kill()
    process.wait()


@pytest.mark.exhaustive
def test_sigterm_stops_all_commands(running, tmp_path):
    """`timeout make gpu` sends the signal twice."""
    process, children = running
    assert children
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert all(map(has_ended, children))
    assert results_of(tmp_path)["stages"][0]["state"] == "unfinished"


def test_killed_run_keeps_its_results_and_can_be_resumed(running, tmp_path):
    process, children = running
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for child in children:
        os.killpg(child, signal.SIGKILL)
    killed = results_of(tmp_path)
    assert [(stage["stage"], stage["state"]) for stage in killed["stages"]] == [("bench", "unfinished")]
    assert killed["machine"]["torch"] == torch.__version__
    assert killed["rows"][0]["op"] == "copy"

    # Another stage resumes the results. Its nvcc fails, so it is not available.
    options = ["--rehearsal", "--only", "sanitizer", "--work", tmp_path]
    done = gpu_command(*options, CUDA_HOME=str(tmp_path / "toolkit"))
    assert done.returncode == 0, done.stdout + done.stderr
    both = results_of(tmp_path)
    assert [(stage["stage"], stage["state"]) for stage in both["stages"]] == [
        ("bench", "unfinished"),
        ("sanitizer", "not available"),
    ]
    assert both["rows"] == killed["rows"]


@pytest.fixture
def run(tmp_path):
    machine = {"compute capability": "9.0", "CUDA toolkit": toolkit(tmp_path / "toolkit")}
    return Run(machine, tmp_path, rehearsal=True)


def test_rehearsal_of_the_tests(run):
    stage = Stage(run, "tests", 60)
    assert run_tests(stage, [ROOT / "tests" / "ctc" / "test_decoder.py"]) == ("ok", "4 passed")


def test_limitations_of_the_pretend_device_are_excused(run):
    outcome = run_tests(Stage(run, "tests", 60), [ROOT / "tests" / "ctc" / "test_ctc_loss_torch.py"])
    reason = "not on the pretend device: it cannot run Triton kernels from Inductor"
    assert outcome.state == "ok", outcome.detail
    assert outcome.detail.endswith(f"passed; 1 not for this machine: {reason}")
    assert CudaResults(run.work / "tests.jsonl", rehearsal=False).not_run([]) == [
        f"test_ctc_loss_torch::test_ctc_loss_compile[cuda-inductor] ({reason})"
    ]


def test_rehearsal_of_a_driver_and_the_tools(run, monkeypatch):
    """The CPU builds find all planted faults, through the code that runs compute-sanitizer on a GPU."""
    monkeypatch.setattr(drivers, "FOLDER", tmp_folder := run.work / "drivers")
    tmp_folder.mkdir()
    planted = f"{drivers.FAULTS}.cu"
    (tmp_folder / planted).write_text((ROOT / "tests/cuda_on_host/drivers" / planted).read_text())
    compilation = drivers.Compilation(run, limit=60, wanted=True)
    compilation.wait()
    assert compilation.failures() == {}
    assert len(compilation.seconds()) == 1
    assert drivers.drivers(Stage(run, "drivers", 60), compilation) == ("ok", "right: planted_faults")

    outcome = sanitizer.sanitizer(Stage(run, "sanitizer", 60), compilation)
    faults = len(drivers.fault_cases())
    assert outcome == (
        "ok",
        f"clean: planted_faults; {faults} of {faults} planted faults reported",
    )
