"""`make gpu REHEARSAL=1`: the gpu command with stand-ins for the device."""

import contextlib
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
from helpers.gpu_command import FOLDER, gpu_command, toolkit
from helpers.paths import ROOT

pytestmark = pytest.mark.skipif(
    pretend_cuda.unavailable_reason() is not None, reason=str(pretend_cuda.unavailable_reason())
)


def results_of(folder):
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text())


def test_rehearsal_of_the_benchmarks(tmp_path):
    options = ["--work", tmp_path / "work", "--results", tmp_path / "results"]
    done = gpu_command("--rehearsal", "--only", "bench", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    results = results_of(tmp_path / "results")
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


def children_of(process):
    """The processes that its main thread has started. Each leads a group."""
    return list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def ended(number):
    """Whether the process has ended, or is only to be waited for."""
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def begun(tmp_path):
    """The command while it measures, and the processes that measure."""
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


def test_a_run_that_is_ended_ends_all_that_it_has_begun(begun, tmp_path):
    """Twice, as by `timeout make gpu`."""
    process, children = begun
    assert children
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert all(map(ended, children))
    assert results_of(tmp_path)["stages"][0]["state"] == "unfinished"


def test_a_run_that_is_killed_leaves_what_it_had_and_a_part_resumes_it(begun, tmp_path):
    process, children = begun
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for child in children:
        os.killpg(child, signal.SIGKILL)
    killed = results_of(tmp_path)
    assert [(stage["stage"], stage["state"]) for stage in killed["stages"]] == [("bench", "unfinished")]
    assert killed["machine"]["torch"] == torch.__version__
    assert killed["rows"][0]["op"] == "copy"

    # Another stage, for which this nvcc compiles nothing, joins what is there.
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
def run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import stages

    machine = {"compute capability": "9.0", "CUDA toolkit": toolkit(tmp_path / "toolkit")}
    return stages.Run(machine, tmp_path, rehearsal=True)


def test_rehearsal_of_the_tests(run):
    import suite

    stage = suite.Stage(run, "tests", 60)
    assert suite.run_tests(stage, [ROOT / "tests" / "ctc" / "test_decoder.py"]) == ("ok", "1 passed")


def test_what_the_pretend_device_cannot_do_is_excused(run):
    import suite

    outcome = suite.run_tests(
        suite.Stage(run, "tests", 60), [ROOT / "tests" / "ctc" / "test_ctc_loss_torch.py"]
    )
    reason = "not on the pretend device: it cannot run Triton kernels from Inductor"
    assert outcome.state == "ok", outcome.detail
    assert outcome.detail.endswith(f"passed; 1 not for this machine: {reason}")
    assert suite.Tests(run.work / "tests.jsonl", rehearsal=False).missing([]) == [
        f"test_ctc_loss_torch::test_compile_into_one_graph[cuda-inductor] ({reason})"
    ]


def test_rehearsal_of_a_driver_and_the_tools(run, monkeypatch):
    """The host's builds find all planted faults, through the code that asks compute-sanitizer on a GPU."""
    import drivers
    import sanitizer

    monkeypatch.setattr(drivers, "FOLDER", tmp_folder := run.work / "drivers")
    tmp_folder.mkdir()
    planted = f"{drivers.FAULTS}.cu"
    (tmp_folder / planted).write_text((ROOT / "tests/cuda_on_host/drivers" / planted).read_text())
    compilation = drivers.Compilation(run, limit=60, wanted=True)
    compilation.wait()
    assert compilation.failures() == {}
    assert len(compilation.seconds()) == 1
    assert drivers.drivers(drivers.Stage(run, "drivers", 60), compilation) == ("ok", "right: planted_faults")

    outcome = sanitizer.sanitizer(drivers.Stage(run, "sanitizer", 60), compilation)
    faults = len(drivers.fault_cases())
    assert outcome == (
        "ok",
        f"clean: planted_faults; {faults} of {faults} planted faults reported",
    )
