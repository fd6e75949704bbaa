"""A killed run resumes to identical losses and weights; a state that does not fit is rejected."""

import os
import signal
import subprocess

import numpy as np
import pytest
import torch
from helpers.striped_lines import write_striped_dataset
from helpers.training_runs import log_entries, run_training, stop_after, train_command, wait_for_steps
from safetensors.torch import load_file

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.cli import main
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.training import TrainingConfig, TrainingError, train

OPTIONS = [
    *["--width", "0.05", "--hidden", "16", "--batch-pixels", "32768", "--epochs", "4", "--log-every", "1"],
    *["--save-every", "4", "--ema", "0.9", "--precision", "bfloat16", "--workers", "1"],
]


def losses(folder):
    return {entry["step"]: entry["loss"] for entry in log_entries(folder, "step")}


def test_resume_after_kill_is_exact(lines, tmp_path):
    reference, resumed = tmp_path / "reference", tmp_path / "resumed"
    subprocess.run(train_command(lines, "-o", reference, *OPTIONS), check=True, capture_output=True)
    steps = len(losses(reference))
    seed = np.random.SeedSequence().entropy
    print("seed", seed)  # shown on failure
    random = np.random.default_rng(seed)
    arguments = [lines, "-o", resumed, *OPTIONS]
    for kill_at in sorted(random.choice(range(1, steps), 2, replace=False)):
        process = subprocess.Popen(train_command(*arguments), stderr=subprocess.DEVNULL)
        wait_for_steps(process, resumed, kill_at)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["-o", resumed, "--resume"]
    subprocess.run(train_command(*arguments), check=True, capture_output=True)
    assert losses(resumed) == losses(reference)
    for name in ("last.safetensors", "best.safetensors"):
        expected = load_file(reference / name)
        assert expected.keys() == load_file(resumed / name).keys()
        for key, tensor in load_file(resumed / name).items():
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_state(lines, tmp_path, number):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        train_command(lines, "-o", folder, *OPTIONS, "--epochs", "1000"),
        stderr=subprocess.PIPE,
        text=True,
        # A shell may start the tests with SIGINT ignored, which child processes inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for_steps(process, folder, 3)
    os.kill(process.pid, number)
    errors = process.communicate()[1]
    assert process.returncode == 128 + number
    assert f"to resume: crnn-ext train -o {folder} --resume" in errors
    assert "Traceback" not in errors
    assert (folder / "state.safetensors").exists()


def test_resume_finished_run(lines, tmp_path):
    done = run_training(tmp_path / "run", lines)
    again = run_training(tmp_path / "run", lines, resume=True)
    assert again.outcome == done.outcome
    assert again.steps == []


def test_resume_command_rejects_changed_settings(lines, tmp_path, capsys):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    assert main(["train", "-o", str(tmp_path / "run"), "--resume", "--lr", "0.5"]) == 2
    assert "lr of a resumed run must be 0.001, got 0.5" in capsys.readouterr().err
    assert (
        main(["train", str(lines) + "/", "-o", str(tmp_path / "run"), "--resume", "--accumulate", "2"]) == 2
    )
    assert "batches per step of all processes must be 1, got 2" in capsys.readouterr().err
    assert main(["train", "-o", str(tmp_path / "run"), "--resume", "--workers", "1"]) == 0


def test_resume_rejects_changed_lines(tmp_path):
    folder = write_striped_dataset(tmp_path / "lines", count=12)
    run_training(tmp_path / "run", folder, stop=stop_after(1))
    labels = (folder / "labels.txt").read_text().splitlines()
    labels[3] = labels[3].partition("\t")[0] + "\tdddd"
    (folder / "labels.txt").write_text("\n".join(labels))
    with pytest.raises(DataError, match=r"the lines of .* have changed since the run began"):
        run_training(tmp_path / "run", folder, resume=True)


def test_resume_rejects_changed_validation_lines(lines, tmp_path):
    """The recorded best error rate belongs to the old lines."""
    val, other = (
        write_striped_dataset(tmp_path / name, count=4, seed=seed) for seed, name in enumerate("ab")
    )
    run_training(tmp_path / "run", lines, val=str(val), stop=stop_after(1))
    with pytest.raises(DataError, match="the validation lines have changed since the run began"):
        run_training(tmp_path / "run", lines, val=str(other), resume=True)
    assert run_training(tmp_path / "run", lines, val=str(val) + "/", resume=True).outcome.reason == "finished"


def test_resume_rejects_changed_settings(lines, tmp_path):
    run_training(tmp_path / "run", lines, lr=1e-2, stop=stop_after(1))
    with pytest.raises(ValueError, match=r"config.json: lr of a resumed run must be 0.01, got 0.001"):
        run_training(tmp_path / "run", lines, resume=True)
    assert TrainingConfig.load(tmp_path / "run/config.json").lr == 1e-2
    assert (
        run_training(tmp_path / "run", lines, lr=1e-2, patience=5, resume=True).outcome.reason == "finished"
    )


def test_run_folder_is_locked(lines, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        train_command(lines, "-o", folder, *OPTIONS, "--epochs", "1000"), stderr=subprocess.DEVNULL
    )
    wait_for_steps(process, folder, 1)
    try:
        with pytest.raises(TrainingError, match=f"{folder}: another process is training there"):
            train(TrainingConfig.load(folder / "config.json"), folder, resume=True, stop=lambda: True)
    finally:
        process.kill()
        process.wait()


def test_resume_removes_temporary_files(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    (tmp_path / "run/.crnn_ext-01234567.tmp").write_bytes(b"half a state")
    run_training(tmp_path / "run", lines, resume=True)
    assert not list((tmp_path / "run").glob(".*"))


def test_run_without_state_restarts(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(0))
    (tmp_path / "run/state.safetensors").unlink()
    assert run_training(tmp_path / "run", lines).outcome.reason == "finished"


def test_resume_rejects_changed_accumulate(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    with pytest.raises(DataError, match=r"batches per step of all processes must be 1, got 2"):
        run_training(tmp_path / "run", lines, resume=True, accumulate=2)


def test_resume_damaged_state(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    state = tmp_path / "run/state.safetensors"
    intact = state.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(intact)
        if random.random() < 0.5:
            del damaged[random.integers(len(damaged)) :]
        else:
            # In the header, which holds everything except the weights.
            damaged[random.integers(2000)] = random.integers(256)
        state.write_bytes(damaged)
        if len(damaged) < len(intact):
            with pytest.raises(DataError, match="not a valid training state"):
                run_training(tmp_path / "run", lines, resume=True)
            continue
        try:
            run_training(tmp_path / "run", lines, resume=True)
        except DataError as error:
            assert str(state) in str(error)  # noqa: PT017 (a changed digit can give a valid state)
    state.write_bytes((tmp_path / "run/last.safetensors").read_bytes())
    with pytest.raises(DataError, match="no entry 'crnn_ext_training'"):
        run_training(tmp_path / "run", lines, resume=True)


def test_resume_truncates_log(lines, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", str(lines), "-o", str(folder), *OPTIONS, "--epochs", "1"]) == 0
    steps = len(losses(folder))
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"event": "step", "step": 9999, "loss": 1}\n{"event": "st')
    assert main(["train", "-o", str(folder), "--resume"]) == 0
    assert list(losses(folder)) == list(range(1, steps + 1))
    capsys.readouterr()


def test_resume_missing_run(tmp_path, capsys):
    assert main(["train", "-o", str(tmp_path / "run"), "--resume"]) == 2
    assert f"{tmp_path / 'run'}: no run to resume" in capsys.readouterr().err
