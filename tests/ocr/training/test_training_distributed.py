"""Two processes started by torchrun train like one process with twice the batch size."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.dataset_files import truncate
from helpers.striped_lines import write_striped_dataset
from helpers.training_runs import log_entries, train_command, wait_for_steps
from safetensors.torch import load_file

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr import load_checkpoint
from crnn_ext.ocr.data import BucketBatchSampler, LineDataset, collate, open_lines
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.training.splits import validation_split

OPTIONS = [
    *["--width", "0.05", "--hidden", "16", "--batch-pixels", "16384", "--epochs", "2", "--log-every", "1"],
    *["--workers", "0"],
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return write_striped_dataset(tmp_path_factory.mktemp("lines"), count=40)


def torchrun_train_command(*arguments):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [sys.executable, *launcher, "-m", "crnn_ext", "train", *map(str, arguments)]


def checked_stderr(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes_match_doubled_batch(lines, tmp_path):
    options = [lines, *OPTIONS, "--freeze-batch-norm", "--lr", "0.003", "--ema", "0.9"]
    checked_stderr(torchrun_train_command(*options, "-o", tmp_path / "two", "--accumulate", "2"))
    checked_stderr(train_command(*options, "-o", tmp_path / "one", "--accumulate", "4"))
    two, one = (log_entries(tmp_path / name, "step") for name in ("two", "one"))
    assert len(two) == len(one) >= 4
    for ours, theirs in zip(two, one, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["blank"] == pytest.approx(theirs["blank"], abs=0.02)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-2)
        assert ours["lines"] == theirs["lines"]
    validated = log_entries(tmp_path / "two", "validation")
    assert validated[-1]["metrics"]["overall"]["lines"] == 4
    for name, tensor in load_file(tmp_path / "two/last.safetensors").items():
        torch.testing.assert_close(
            tensor, load_file(tmp_path / "one/last.safetensors")[name], atol=2e-3, rtol=1e-2
        )


def test_batch_norm_statistics_averaged(lines, tmp_path):
    """After one step, in which each process normalizes its own batch."""
    options = [*OPTIONS, "--lr", "1e-8", "--ema", "0.5", "--epochs", "1", "--batch-pixels", "1000000"]
    checked_stderr(torchrun_train_command(lines, *options, "-o", tmp_path / "two"))
    state = load_file(tmp_path / "two/state.safetensors")
    assert state["optimizer.conv1.weight.step"] == 1
    checkpoint = load_checkpoint(tmp_path / "two/last.safetensors")
    source = open_lines(lines)
    held_out = set(validation_split(source, [1] * len(source), 0.1, 0))
    dataset = LineDataset(source, checkpoint.preprocessing, Augmentation(1.0), seed=0, epoch=0)
    columns = [
        0 if index in held_out else checkpoint.preprocessing.columns(*source.image_size(index))
        for index in range(len(source))
    ]
    means = []
    for rank in range(2):
        [batch] = BucketBatchSampler(columns, 1000000, height=32, seed=0, rank=rank, world_size=2)
        batch = collate([dataset[index] for index in batch])
        network = copy.deepcopy(checkpoint.network).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
        network(batch.images, batch.widths)
        means.append(network.bn3.running_mean)
    assert (means[0] - means[1]).abs().max() > 1e-4
    for name in ("network.bn3.running_mean", "average.bn3.running_mean"):
        torch.testing.assert_close(state[name], (means[0] + means[1]) / 2, atol=1e-6, rtol=1e-3, msg=name)


@pytest.mark.exhaustive
def test_process_without_readable_lines(tmp_path):
    """Such a process contributes no gradient, yet takes part in the reduction."""
    folder = write_striped_dataset(tmp_path / "lines", count=12)
    for number in range(0, 12, 3):
        truncate(folder / f"{number}.png")
    val = write_striped_dataset(tmp_path / "val", count=2)
    checked_stderr(
        torchrun_train_command(
            folder, "--val", val, *OPTIONS, "--batch-pixels", "1024", "-o", tmp_path / "run"
        )
    )
    steps = log_entries(tmp_path / "run", "step")
    assert len(steps) == 12  # two epochs; a step has two lines
    assert sorted({step["lines"] for step in steps}) in ([0, 1, 2], [1, 2])
    assert all((step["loss"] is None) == (step["lines"] == 0) for step in steps)
    assert [len(report["unreadable"]) for report in log_entries(tmp_path / "run", "left_out")] == [4, 4]


@pytest.mark.parametrize(
    "how", ["SIGTERM to all", pytest.param("SIGKILL to one", marks=pytest.mark.exhaustive)]
)
def test_resume_two_processes_as_one(lines, tmp_path, how):
    folder = tmp_path / "run"
    options = [lines, *OPTIONS, "--freeze-batch-norm", "--epochs", "500", "--save-every", "2"]
    process = subprocess.Popen(
        torchrun_train_command(*options, "-o", folder), stderr=subprocess.PIPE, text=True
    )
    wait_for_steps(process, folder, 5)
    if how == "SIGKILL to one":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        process.communicate(timeout=120)
        assert process.returncode != 0
    else:
        process.send_signal(signal.SIGTERM)
        assert "to resume: crnn-ext train" in process.communicate()[1]
    stopped = log_entries(folder, "step")[-1]["step"]
    expected = {entry["step"]: entry["loss"] for entry in log_entries(folder, "step")}
    process = subprocess.Popen(
        train_command("-o", folder, "--resume", "--accumulate", "2"), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and log_entries(folder, "step")[-1]["step"] < stopped + 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    done = {entry["step"]: entry["loss"] for entry in log_entries(folder, "step")}
    assert list(done) == list(range(1, len(done) + 1))
    for number, loss in expected.items():
        assert done[number] == pytest.approx(loss, rel=1e-3)


@pytest.mark.exhaustive
def test_resume_two_processes_until_patience(lines, tmp_path):
    folder = tmp_path / "run"
    options = [lines, *OPTIONS, "--lr", "1e-8", "--epochs", "500", "--validate-every", "4"]
    process = subprocess.Popen(torchrun_train_command(*options, "-o", folder), stderr=subprocess.DEVNULL)
    wait_for_steps(process, folder, 3)
    process.send_signal(signal.SIGTERM)
    process.wait()
    errors = checked_stderr(torchrun_train_command("-o", folder, "--resume", "--patience", "2"))
    assert "the validation CER stopped improving" in errors
    steps = [entry["step"] for entry in log_entries(folder, "step")]
    assert steps == list(range(1, len(steps) + 1))
    assert [entry["best"] for entry in log_entries(folder, "validation")][-2:] == [False, False]


def test_error_in_first_process_ends_all(lines, tmp_path):
    (tmp_path / "run").write_text("a file, and no folder")
    done = subprocess.run(
        torchrun_train_command(lines, *OPTIONS, "-o", tmp_path / "run"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert done.stderr.count(f"crnn-ext: {tmp_path / 'run'}: ") == 2
    assert "crnn_ext/" not in done.stderr.partition("torch/distributed")[0]  # no traceback of crnn_ext
