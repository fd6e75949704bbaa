"""Training on a GPU gives the same results as on a CPU."""

import math
import os
import subprocess
import sys
from difflib import SequenceMatcher

import pytest
import torch
from helpers.striped_lines import striped_image, write_striped_dataset
from helpers.training_runs import log_entries, run_training, stop_after

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr import Recognizer

pytestmark = pytest.mark.parametrize("device", ["cuda"], indirect=True)

# Batches are loaded by a worker process and pinned, as by default.
SETTINGS = {"workers": 1, "accumulate": 2, "ema": 0.9, "lr": 1e-2}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return write_striped_dataset(tmp_path_factory.mktemp("lines"))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_training_learns_to_read(lines, tmp_path, device, precision):
    settings = {**SETTINGS, "accumulate": 1, "precision": precision}
    done = run_training(tmp_path / "run", lines, epochs=40, device=device, **settings)
    start = run_training(tmp_path / "cpu", lines, stop=stop_after(1), **{**settings, "precision": "float32"})
    assert done.steps[0].loss == pytest.approx(start.steps[0].loss, rel=0.02)
    assert done.steps[0].blank == pytest.approx(start.steps[0].blank, abs=0.02)
    assert done.steps[-1].loss < 0.3
    recognizer = Recognizer.load(tmp_path / "run/best.safetensors", device=device)
    # Several lines, compared approximately: runs that differ in their last bits end with different networks.
    read = recognizer([striped_image("abcda", seed=seed) for seed in range(77, 83)])
    likeness = [SequenceMatcher(None, line.text, "abcda").ratio() for line in read]
    assert sum(likeness) / len(likeness) > 0.8


def stderr_of(command, seconds):
    """Return standard error of a torchrun command, which must succeed within this time."""
    # Without a network, the host name may not resolve to an address.
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    torchrun = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = torchrun.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        torchrun.terminate()  # not kill(): torchrun must end its workers, which have their own sessions
        pytest.fail(f"not done within {seconds} s:\n{torchrun.communicate()[1]}")
    assert torchrun.returncode == 0, errors
    return errors


def test_processes_share_a_gpu(lines, tmp_path, device):
    """One process more than there are GPUs; NCCL does not allow two processes on one GPU."""
    processes = torch.cuda.device_count() + 1
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = ["--width", "0.05", "--hidden", "16", "--epochs", "1", "--workers", "0", "--log-every", "1"]
    command = [*launcher, "-m", "crnn_ext", "train", str(lines), "-o", str(tmp_path / "run"), *options]
    errors = stderr_of([sys.executable, *command], seconds=60)
    assert f"{processes} processes share" in errors
    assert math.isfinite(log_entries(tmp_path / "run", "step")[-1]["loss"])


def test_training_resumes(lines, tmp_path, device):
    uninterrupted = run_training(tmp_path / "uninterrupted", lines, epochs=2, device=device, **SETTINGS)
    run_training(tmp_path / "interrupted", lines, epochs=2, device=device, stop=stop_after(3), **SETTINGS)
    rest = run_training(tmp_path / "interrupted", lines, epochs=2, device=device, resume=True, **SETTINGS)
    assert [step.step for step in rest.steps] == list(range(4, uninterrupted.total + 1))
    for ours, theirs in zip(rest.steps, uninterrupted.steps[3:], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=0.05)
