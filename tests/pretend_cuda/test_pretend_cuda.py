"""The tests that have no other device than a GPU run on the pretend one, in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.paths import ROOT

import pretend_cuda

PARTS = ("tests/pretend_cuda/self_test.py", "tests/cuda/test_cuda.py", "tests/cuda/test_training_cuda.py")
# Each precision to train in takes half a minute: bfloat16, the default, stands for all.
LEFT_OUT = [
    f"--deselect=tests/cuda/test_training_cuda.py::test_training_learns_to_read[{precision}-cuda]"
    for precision in ("float32", "tf32", "float16")
]


@pytest.mark.skipif(torch.version.cuda is not None, reason="the pretend device is for CPU builds of torch")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this is such a process")
@pytest.mark.skipif(
    pretend_cuda.unavailable_reason() is not None, reason=str(pretend_cuda.unavailable_reason())
)
def test_what_needs_a_gpu_passes_on_the_pretend_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pretend_cuda.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "CRNN_REQUIRE_CUDA": "1"}
    done = subprocess.run(
        [*command, *LEFT_OUT, *PARTS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(LEFT_OUT)} deselected" in done.stdout
