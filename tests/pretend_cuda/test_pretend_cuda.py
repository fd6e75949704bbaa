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
# Each training precision takes half a minute, so only the default, bfloat16, runs.
DESELECTED = [
    f"--deselect=tests/cuda/test_training_cuda.py::test_training_learns_to_read[{precision}-cuda]"
    for precision in ("float32", "tf32", "float16")
]


@pytest.mark.skipif(torch.version.cuda is not None, reason="requires a CPU build of torch")
@pytest.mark.skipif(torch.cuda.is_available(), reason="already on a GPU or the pretend device")
@pytest.mark.skipif(
    pretend_cuda.unavailable_reason() is not None, reason=str(pretend_cuda.unavailable_reason())
)
def test_gpu_tests_pass_on_the_pretend_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pretend_cuda.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "CRNN_REQUIRE_CUDA": "1"}
    done = subprocess.run(
        [*command, *DESELECTED, *TEST_FILES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(DESELECTED)} deselected" in done.stdout
