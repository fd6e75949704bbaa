"""A run that was killed goes on to the same losses and weights; a state that does not fit is refused."""

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


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """So small a network gains nothing from more, and loses much where other programs run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return write_striped_dataset(tmp_path_factory.mktemp("lines"))


def losses(folder):
    return {entry["step"]: entry["loss"] for entry in log_entries(folder, "step")}


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(lines, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(train_command(lines, "-o", whole, *OPTIONS), check=True, capture_output=True)
    steps = len(losses(whole))
    seed = np.random.SeedSequence().entropy
    print("seed", seed)  # shown if it fails
    random = np.random.default_rng(seed)
    arguments = [lines, "-o", broken, *OPTIONS]
    for kill_at in sorted(random.choice(range(1, steps), 2, replace=False)):
        process = subprocess.Popen(train_command(*arguments), stderr=subprocess.DEVNULL)
        wait_for_steps(process, broken, kill_at)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["-o", broken, "--resume"]
    subprocess.run(train_command(*arguments), check=True, capture_output=True)
    assert losses(broken) == losses(whole)
    for name in ("last.safetensors", "best.safetensors"):
        expected = load_file(whole / name)
        assert expected.keys() == load_file(broken / name).keys()
        for key, tensor in load_file(broken / name).items():
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state(lines, tmp_path, number):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        train_command(lines, "-o", folder, *OPTIONS, "--epochs", "1000"),
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have started the tests with SIGINT ignored, which programs inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for_steps(process, folder, 3)
    os.kill(process.pid, number)
    told = process.communicate()[1]
    assert process.returncode == 128 + number
    assert f"to resume: crnn-ext train -o {folder} --resume" in told
    assert "Traceback" not in told
    assert (folder / "state.safetensors").exists()


def test_a_run_that_is_over_has_nothing_left(lines, tmp_path):
    done = run_training(tmp_path / "run", lines)
    again = run_training(tmp_path / "run", lines, resume=True)
    assert again.outcome == done.outcome
    assert again.steps == []


def test_settings_cannot_change_on_the_way(lines, tmp_path, capsys):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    assert main(["train", "-o", str(tmp_path / "run"), "--resume", "--lr", "0.5"]) == 2
    assert "lr of a resumed run must be 0.001, got 0.5" in capsys.readouterr().err
    assert (
        main(["train", str(lines) + "/", "-o", str(tmp_path / "run"), "--resume", "--accumulate", "2"]) == 2
    )
    assert "batches per step of all processes must be 1, got 2" in capsys.readouterr().err
    assert main(["train", "-o", str(tmp_path / "run"), "--resume", "--workers", "1"]) == 0


def test_other_lines_are_told(tmp_path):
    folder = write_striped_dataset(tmp_path / "lines", count=12)
    run_training(tmp_path / "run", folder, stop=stop_after(1))
    labels = (folder / "labels.txt").read_text().splitlines()
    labels[3] = labels[3].partition("\t")[0] + "\tdddd"
    (folder / "labels.txt").write_text("\n".join(labels))
    with pytest.raises(DataError, match=r"the lines of .* have changed since the run began"):
        run_training(tmp_path / "run", folder, resume=True)


def test_other_lines_for_validation_are_told(lines, tmp_path):
    """Their error rate is no longer that of the best network."""
    val, other = (
        write_striped_dataset(tmp_path / name, count=4, seed=seed) for seed, name in enumerate("ab")
    )
    run_training(tmp_path / "run", lines, val=str(val), stop=stop_after(1))
    with pytest.raises(DataError, match="the validation lines have changed since the run began"):
        run_training(tmp_path / "run", lines, val=str(other), resume=True)
    assert run_training(tmp_path / "run", lines, val=str(val) + "/", resume=True).outcome.reason == "finished"


def test_settings_are_compared_from_python_too(lines, tmp_path):
    run_training(tmp_path / "run", lines, lr=1e-2, stop=stop_after(1))
    with pytest.raises(ValueError, match=r"config.json: lr of a resumed run must be 0.01, got 0.001"):
        run_training(tmp_path / "run", lines, resume=True)
    assert TrainingConfig.load(tmp_path / "run/config.json").lr == 1e-2
    assert (
        run_training(tmp_path / "run", lines, lr=1e-2, patience=5, resume=True).outcome.reason == "finished"
    )


def test_one_run_at_a_time(lines, tmp_path):
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


def test_what_killed_processes_leave_is_removed(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    (tmp_path / "run/.crnn_ext-01234567.tmp").write_bytes(b"half a state")
    run_training(tmp_path / "run", lines, resume=True)
    assert not list((tmp_path / "run").glob(".*"))


def test_a_run_that_was_killed_before_its_first_state_was_whole_can_be_begun_again(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(0))
    (tmp_path / "run/state.safetensors").unlink()
    assert run_training(tmp_path / "run", lines).outcome.reason == "finished"


def test_another_number_of_batches_a_step_is_told(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    with pytest.raises(DataError, match=r"batches per step of all processes must be 1, got 2"):
        run_training(tmp_path / "run", lines, resume=True, accumulate=2)


def test_states_that_are_none(lines, tmp_path):
    run_training(tmp_path / "run", lines, stop=stop_after(1))
    state = tmp_path / "run/state.safetensors"
    whole = state.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        if random.random() < 0.5:
            del broken[random.integers(len(broken)) :]
        else:
            # In the header, where all that is not weights is.
            broken[random.integers(2000)] = random.integers(256)
        state.write_bytes(broken)
        if len(broken) < len(whole):
            with pytest.raises(DataError, match="not a valid training state"):
                run_training(tmp_path / "run", lines, resume=True)
            continue
        try:
            run_training(tmp_path / "run", lines, resume=True)
        except DataError as error:
            assert str(state) in str(error)  # noqa: PT017 (it need not be raised: a changed digit is a state)
    state.write_bytes((tmp_path / "run/last.safetensors").read_bytes())
    with pytest.raises(DataError, match="no entry 'crnn_ext_training'"):
        run_training(tmp_path / "run", lines, resume=True)


def test_the_log_is_cut_to_where_the_run_goes_on(lines, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", str(lines), "-o", str(folder), *OPTIONS, "--epochs", "1"]) == 0
    steps = len(losses(folder))
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"event": "step", "step": 9999, "loss": 1}\n{"event": "st')
    assert main(["train", "-o", str(folder), "--resume"]) == 0
    assert list(losses(folder)) == list(range(1, steps + 1))
    capsys.readouterr()


def test_there_is_nothing_to_resume(tmp_path, capsys):
    assert main(["train", "-o", str(tmp_path / "run"), "--resume"]) == 2
    assert f"{tmp_path / 'run'}: no run to resume" in capsys.readouterr().err
