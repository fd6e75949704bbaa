"""The tests stage of `make gpu`."""

import json
import os
import subprocess
import sys

import pytest
import tests_stage
from helpers.gpu_command import FOLDER
from helpers.paths import ROOT
from stages import Run, Stage, StageTimeoutError
from tests_stage import CudaResults, find_cuda_modules


@pytest.fixture
def run(tmp_path):
    return Run({"compute capability": "9.0"}, tmp_path)


# The plugin of the stage and its imports.
PLUGIN_PATH = os.pathsep.join([str(FOLDER), str(ROOT / "tests")])
# Gives tests the devices of a machine with a GPU.
CONFTEST = """
import pytest
@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    return request.param
"""
SOUND = "def test_it(device): assert device == 'cuda'\ndef test_other(): assert False\n"


@pytest.fixture
def workers(request, monkeypatch):
    """The number of pytest workers."""
    count = getattr(request, "param", 1)
    monkeypatch.setattr(tests_stage, "_MAX_WORKERS", count)
    monkeypatch.setattr(tests_stage.os, "sched_getaffinity", lambda process: range(16))
    return count


in_one_process_and_in_two = pytest.mark.parametrize(
    "workers", [1, pytest.param(2, marks=pytest.mark.exhaustive)], indirect=True
)


@pytest.fixture
def outcome_of(run, tmp_path, workers):
    """Returns the outcome of the stage for test modules with these contents."""

    def outcome_of(stage=None, **contents):
        folder = tmp_path / "modules"
        folder.mkdir()
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "pytest.ini").write_text("[pytest]\n")
        for name, content in contents.items():
            (folder / f"{name}.py").write_text(content)
        files = sorted(folder.glob("test_*.py"))
        return tests_stage.run_tests(stage or Stage(run, "tests", 60), files)

    return outcome_of


@in_one_process_and_in_two
def test_other_devices_are_deselected(outcome_of):
    assert outcome_of(test_one=SOUND, test_two=SOUND) == ("ok", "2 passed")


@pytest.mark.parametrize("workers", [1, 2], indirect=True)
def test_gpu_only_tests_come_first(outcome_of, run, workers):
    """They are spread over the workers: here each of two tests waits for the other."""
    waits = """
import time
from pathlib import Path
def test_it(device):
    here = Path(__file__)
    here.with_suffix(".begun").touch()
    end = time.monotonic() + 20
    while len(list(here.parent.glob("*.begun"))) < WORKERS and time.monotonic() < end:
        time.sleep(0.05)
    assert len(list(here.parent.glob("*.begun"))) >= WORKERS
""".replace("WORKERS", str(workers))
    others = "def test_it(device): pass\n"
    modules = {"test_a": others, "test_b": others, "test_cuda": waits, "test_training_cuda": waits}
    assert outcome_of(**modules) == ("ok", "4 passed")
    if workers == 1:
        names = [json.loads(line)["test"] for line in (run.work / "tests.jsonl").read_text().splitlines()]
        order = [name.partition("::")[0].rpartition("/")[2] for name in names]
        assert order == ["test_cuda.py", "test_training_cuda.py", "test_a.py", "test_b.py"]


def test_modules_after_the_time_limit(outcome_of, run):
    class Late(Stage):
        def python(self, *arguments, **options):
            super().python(*arguments, **options)
            raise StageTimeoutError("stopped at its time limit")

    ends = "import pytest\ndef test_it(device): pytest.exit('its time is over')\n"
    outcome = outcome_of(Late(run, "tests", 60), test_cuda=SOUND, test_one=ends, test_two=ends)
    assert outcome == (
        "failed",
        "stopped at its time limit; 1 passed; "
        "NOT RUN: test_one.py (no test of it), test_two.py (no test of it)",
    )


def test_failure(outcome_of):
    failing = SOUND.replace("== 'cuda'", "== 'cpu'")
    outcome = outcome_of(test_one=SOUND, test_two=failing)
    assert outcome == ("failed", "1 passed, 1 failed; failed: test_two::test_it[cuda]")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import a_package_that_is_not_there\n" + SOUND, "No module named 'a_package_that_is_not_there'"),
        ("import pytest\npytest.importorskip('no_package')\n" + SOUND, "could not import 'no_package'"),
        ("def test_it(): pass\n", "no test of it"),
    ],
)
@in_one_process_and_in_two
def test_module_without_a_test_is_a_failure(outcome_of, content, reason):
    outcome = outcome_of(test_one=SOUND, test_two=content)
    assert outcome.state == "failed"
    assert outcome.detail.startswith("1 passed; NOT RUN: test_two.py (")
    assert reason in outcome.detail


def test_skip_because_of_a_missing_package_is_a_failure(outcome_of):
    skips = "import pytest\ndef test_it(device): pytest.importorskip('no_package')\n"
    outcome = outcome_of(test_one=SOUND, test_two=skips)
    assert outcome.state == "failed"
    assert "NOT RUN: test_two::test_it[cuda] (could not import 'no_package'" in outcome.detail


def test_skip_because_of_a_missing_gpu_is_excused(outcome_of):
    skips = "import pytest\ndef test_it(device): pytest.skip('needs two GPUs')\n"
    assert outcome_of(test_one=SOUND, test_two=skips) == (
        "ok",
        "1 passed; 1 not for this machine: needs two GPUs",
    )


def test_no_tests_are_a_failure(outcome_of):
    assert outcome_of(test_one="def test_it(): pass\n").state == "failed"


@in_one_process_and_in_two
def test_no_test_runs_in_a_broken_context(outcome_of, run, workers):
    """After a fault in a kernel, every later CUDA call of the process fails."""
    broken = """
import torch
def fails():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
def test_it(device, monkeypatch):
    torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, fails
    fails()
def test_next(device):
    pass
"""
    outcome = outcome_of(test_one=broken, test_two=SOUND)
    reason = next(iter(CudaResults(run.work / "tests.jsonl", rehearsal=False).not_passed()))["why"]
    assert reason == "RuntimeError: CUDA error: an illegal memory access was encountered"
    if workers == 1:
        assert outcome == (
            "failed",
            "1 failed; failed: test_one::test_it[cuda]; NOT RUN: test_two.py (no test of it)",
        )
    else:
        # test_next of the first module runs in a new worker.
        assert outcome == ("failed", "2 passed, 1 failed; failed: test_one::test_it[cuda]")


def test_carried_packages(run):
    assert run.has_package("pytest")
    assert not run.has_package("carried_package")
    run.site.mkdir()
    (run.site / "carried_package.py").touch()
    assert run.has_package("carried_package")


def test_find_cuda_modules():
    names = {path.stem for path in find_cuda_modules()}
    assert {"test_cuda", "test_training_cuda", "test_ctc_loss", "test_beam_search", "test_decoder"} <= names
    assert not {"test_cuda_on_host", "test_gpu_command", "test_build", "test_cli"} & names


def test_cuda_modules_do_not_need_rare_packages(tmp_path):
    """Packages of requirements-dev.txt that a machine for training may lack."""
    missing = ["lmdb", "rapidfuzz", "kenlm", "expecttest", "torch_abi_audit"]
    (tmp_path / "hidden.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({missing}))")
    notes = tmp_path / "notes"
    options = ["--collect-only", "-q", "-p", "hidden", "-p", "pytest_cuda", "--cuda-results", notes]
    files = find_cuda_modules()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), PLUGIN_PATH]),
            "CRNN_REQUIRE_CUDA": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert not notes.exists()
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert collected == {path.relative_to(ROOT).as_posix() for path in files}


def test_opcheck_works_without_expecttest():
    script = (
        "import sys; sys.modules['expecttest'] = None; import pytest_cuda, torch; "
        "torch.library.opcheck(torch.ops.aten.sin.default, (torch.ones(2),), test_utils='test_schema')"
    )
    environment = os.environ | {"PYTHONPATH": PLUGIN_PATH}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
