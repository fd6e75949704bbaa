"""Runs the tests that need a GPU on the pretend device, in a separate process."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.paths import ROOT

import pretend_cuda

TEST_FILES = (
    "tests/pretend_cuda/self_test.py",
    "tests/cuda/test_cuda.py",
    "tests/cuda/test_training_cuda.py",
)
# Half a minute for each precision: an exhaustive run trains with the default one, bfloat16.
LONG_TEST = "tests/cuda/test_training_cuda.py::test_training_learns_to_read"


@pytest.mark.skipif(torch.version.cuda is not None, reason="requires a CPU build of torch")
@pytest.mark.skipif(torch.cuda.is_available(), reason="already on a GPU or the pretend device")
@pytest.mark.skipif(
    pretend_cuda.unavailable_reason() is not None, reason=str(pretend_cuda.unavailable_reason())
)
@pytest.mark.parametrize(
    "arguments",
    [
        (f"--deselect={LONG_TEST}", *TEST_FILES),
        pytest.param((f"{LONG_TEST}[bfloat16-cuda]",), marks=pytest.mark.exhaustive),
    ],
    ids=["most", "long"],
)
def test_gpu_tests_pass_on_the_pretend_device(arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pretend_cuda.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "CRNN_REQUIRE_CUDA": "1"}
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("4 deselected" if len(arguments) > 1 else "1 passed") in done.stdout
