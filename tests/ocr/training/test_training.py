"""Training on small data: learning, skipped lines, failures."""

import io
import json
import math
import os

import pytest
import torch
from helpers.dataset_files import truncate, write, write_labels_dataset
from helpers.striped_lines import striped_image, write_striped_dataset
from helpers.training_runs import Recorder, run_training, stop_after
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr import Recognizer, load_checkpoint
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.system.distributed import ProcessGroup
from crnn_ext.ocr.training import TrainingConfig, TrainingError
from crnn_ext.ocr.training.console import ConsoleLogger
from crnn_ext.ocr.training.ema import ExponentialMovingAverage
from crnn_ext.ocr.training.schedule import one_cycle
from crnn_ext.ocr.training.splits import validation_split
from crnn_ext.text import Charset


def test_training_learns_to_read(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, epochs=40, lr=1e-2)
    assert done.outcome.reason == "finished"
    assert done.steps[-1].step == done.total == done.outcome.step
    assert done.steps[-1].loss < 0.2 < done.steps[0].loss
    assert (
        done.outcome.best_cer
        == min(v.evaluation.metrics.overall.cer.rate.value for v in done.validations)
        < 0.1
    )
    recognizer = Recognizer.load(tmp_path / "run/best.safetensors")
    assert recognizer([striped_image("abcda", seed=77)])[0].text == "abcda"
    assert done.over


def test_training_saves_best_and_last(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, epochs=4)
    best = [validation.step for validation in done.validations if validation.best][-1]
    assert load_checkpoint(tmp_path / "run/best.safetensors").metadata["step"] == str(best)
    assert load_checkpoint(tmp_path / "run/last.safetensors").metadata["step"] == str(done.total)


def test_training_saves_config(lines, tmp_path):
    run_training(tmp_path / "run", lines, precision=None, workers=None)
    saved = TrainingConfig.load(tmp_path / "run/config.json")
    assert (saved.precision, saved.workers) == ("float32", 1)


def test_training_does_not_overwrite_run(lines, tmp_path):
    run_training(tmp_path / "run", lines)
    with pytest.raises(ValueError, match="already contains a run"):
        run_training(tmp_path / "run", lines)


def test_training_splits_lines(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, val_fraction=0.25)
    assert done.validations[-1].evaluation.metrics.overall.lines == 12
    assert sum(step.lines for step in done.steps) == 36


def test_training_validate_every(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, epochs=2, validate_every=3)
    assert [validation.step for validation in done.validations] == [*range(3, done.total, 3), done.total]


def test_training_reports_skipped_lines(tmp_path):
    folder = write_striped_dataset(tmp_path / "lines", count=12)
    striped_image("a").save(folder / "short.png")
    with open(folder / "labels.txt", "a") as labels:
        labels.write("short.png\tabcdabcdabcdabcd\nfar.png\tab\n")
    write(folder / "broken.png", b"\x89PNG\r\n")
    with open(folder / "labels.txt", "a") as labels:
        labels.write("broken.png\tab\n")
    done = run_training(tmp_path / "run", folder, val=str(write_striped_dataset(tmp_path / "val", count=4)))
    notes = "\n".join(done.notes)
    assert "too few frames: 1: short.png: " in notes
    assert "missing image: 1: far.png" in notes
    assert "unreadable image: 1: broken.png" in notes
    assert sum(step.lines for step in done.steps) == 12
    assert done.reports[0].always == 3
    assert {problem.name for problem in done.always_skipped} == {"short.png", "far.png", "broken.png"}


def test_training_survives_unreadable_image(tmp_path):
    folder = write_striped_dataset(tmp_path / "lines", count=12)
    truncate(folder / "3.png")
    done = run_training(tmp_path / "run", folder, epochs=2, val=str(folder))
    assert [[problem.name for problem in report.unreadable] for report in done.reports] == [["3.png"]] * 2
    assert all(step.seconds > 0 for step in done.steps)
    assert [line.name for line in done.validations[0].evaluation.unreadable] == ["3.png"]


def test_training_rejects_different_lines_across_processes(lines, monkeypatch, tmp_path):
    """Happens if machines have copies of the data and only one was corrected."""
    monkeypatch.setattr(ProcessGroup, "all_gather", lambda group, part: [part, (None, "others")])
    with pytest.raises(DataError, match="process 1 has other lines than process 0"):
        run_training(tmp_path / "run", lines)


def test_training_skips_too_wide_lines(tmp_path):
    folder = write_striped_dataset(tmp_path / "lines", count=4)
    Image.new("L", (20_000, 20), 255).save(folder / "0.png")
    done = run_training(tmp_path / "run", folder, val=str(write_striped_dataset(tmp_path / "val", count=2)))
    [problem] = done.always_skipped
    columns = "20000 x 20 pixels, scaled to 32 rows, have 32000 columns"
    assert str(problem).startswith(f"0.png: too wide: {columns}")
    with pytest.raises(DataError, match=r"no usable line; the first problem is 0\.png: too wide"):
        run_training(
            tmp_path / "other", folder, val=str(single_image_dataset(tmp_path / "val", folder / "0.png"))
        )


def single_image_dataset(folder, image):
    """Return a data set of this image only."""
    folder = write_labels_dataset(folder / "one", {"0.png": "a"}).parent
    (folder / "0.png").write_bytes(image.read_bytes())
    return folder


def test_training_no_usable_lines(tmp_path):
    write_labels_dataset(tmp_path / "lines", {"a.png": "a" * 60, "b.png": "b" * 60})
    with pytest.raises(DataError, match=r"no line can be trained on.*too few frames"):
        run_training(tmp_path / "run", tmp_path / "lines")
    assert not (tmp_path / "run").exists()


def test_training_fails_without_readable_images(tmp_path):
    folder = write_striped_dataset(tmp_path / "lines", count=8)
    for path in folder.glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(TrainingError, match=r"no line of the last 100 steps could be trained on: \d\.png: "):
        run_training(
            tmp_path / "run",
            folder,
            val=str(write_striped_dataset(tmp_path / "val", count=2)),
            epochs=200,
            validate_every=999,
        )


def test_training_no_readable_validation_line(lines, tmp_path):
    folder = write_striped_dataset(tmp_path / "val", count=2)
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable line; the first problem is 0\.png: unreadable image"):
        run_training(tmp_path / "run", lines, val=str(folder))


def test_training_names_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"lines-\xe9")
    write_striped_dataset(folder, count=8)
    odd = os.fsdecode(b"caf\xe9.png")
    (folder / odd).write_bytes((folder / "0.png").read_bytes()[:60])
    with open(folder / "labels.txt", "ab") as labels:
        labels.write(os.fsencode(odd) + b"\tab\n")
    done = run_training(tmp_path / "run", folder, val=str(folder), callbacks=[ConsoleLogger(io.StringIO())])
    assert [problem.name for problem in done.reports[0].unreadable] == [odd]
    entries = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [entry["unreadable"][0]["name"] for entry in entries if entry["event"] == "left_out"] == [odd]
    assert run_training(tmp_path / "run", folder, val=str(folder), resume=True).steps == []


def test_training_characters_outside_charset(lines, tmp_path, write_file):
    done = run_training(tmp_path / "run", lines, charset=str(write_file("abc")))
    assert any("characters outside the charset: " in note and "'d'" in note for note in done.notes)
    assert any("validation lines have" in note and "'d' U+0064" in note for note in done.notes)
    assert load_checkpoint(tmp_path / "run/last.safetensors").charset == Charset("abc")


def test_training_skips_step_without_finite_gradient(lines, tmp_path):
    from crnn_ext.ctc import ctc_loss

    calls = []

    def criterion(logits, *targets):
        losses = ctc_loss(logits, *targets, reduction="none", zero_infinity=True)
        calls.append(logits)
        return losses * math.nan if len(calls) > 1 else losses

    one_step = run_training(tmp_path / "one", lines, criterion=criterion, stop=stop_after(1))
    calls.clear()
    three_steps = run_training(tmp_path / "three", lines, criterion=criterion, stop=stop_after(3))
    assert [step.skipped for step in three_steps.steps] == [False, True, True]
    assert [step.loss for step in three_steps.steps] == [
        pytest.approx(one_step.steps[0].loss),
        *[pytest.approx(math.nan, nan_ok=True)] * 2,
    ]
    assert one_step.outcome.step == 1
    assert three_steps.reports[0].skipped == 2
    first, third = (
        load_checkpoint(tmp_path / name / "last.safetensors").network for name in ("one", "three")
    )
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, third.state_dict()[name]), name


def test_training_fails_without_finite_gradient(lines, tmp_path):
    with pytest.raises(TrainingError, match="the last 100 steps had no finite gradient"):
        run_training(
            tmp_path / "run",
            *(lines,),
            epochs=50,
            validate_every=1000,
            criterion=lambda logits, *_: logits.sum((0, 2)) * math.inf,
        )


def test_training_patience(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, epochs=50, lr=1e-8, patience=2)
    assert done.outcome.reason == "no progress"
    assert [validation.best for validation in done.validations] == [True, False, False]


def test_training_stop_and_resume(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, epochs=2, stop=stop_after(4))
    assert done.outcome == ("stopped", 4, None)
    assert done.reports[-1].step == 4
    rest = run_training(tmp_path / "run", lines, epochs=2, resume=True)
    assert rest.first == 4
    assert rest.steps[0].step == 5


def test_training_stop_at_epoch_boundaries(lines, tmp_path):
    done = run_training(tmp_path / "run", lines, epochs=2, stop=stop_after(0))
    assert (done.outcome, done.steps, done.reports) == (("stopped", 0, None), [], [])
    first = run_training(tmp_path / "run", lines, epochs=2, resume=True, stop=stop_after(7))
    assert first.outcome.reason == "stopped"
    assert [(report.epoch, report.step, report.ended) for report in first.reports] == [(1, 7, True)]
    assert run_training(tmp_path / "run", lines, epochs=2, resume=True).outcome.step == 14


def test_training_reports_skipped_lines_before_saving(tmp_path):
    """A run killed later resumes from the saved state and does not see these lines again."""
    folder = write_striped_dataset(tmp_path / "lines", count=12)
    for path in folder.glob("*.png"):
        truncate(path)
    done = run_training(
        *(tmp_path / "run", folder),
        val=str(write_striped_dataset(tmp_path / "val", count=2)),
        batch_pixels=1024,
        save_every=5,
    )
    assert [(report.step, report.ended) for report in done.reports] == [(5, False), (10, False), (12, True)]
    assert [len(report.unreadable) for report in done.reports] == [5, 5, 2]
    assert len({problem.name for report in done.reports for problem in report.unreadable}) == 12


def test_training_callbacks_end_after_failure(lines, tmp_path):
    recorder = Recorder()

    def criterion(logits, *_):
        raise ValueError("no loss")

    with pytest.raises(ValueError, match="no loss"):
        run_training(tmp_path / "run", lines, criterion=criterion, callbacks=[recorder])
    assert recorder.over


@pytest.mark.parametrize(
    ("network", "precision"), [("CRNN", "float16"), ("CRNN_v2", "bfloat16"), ("CRNN_res", "bfloat16")]
)
def test_training_networks_and_precisions(lines, tmp_path, network, precision):
    done = run_training(tmp_path / "run", lines, network=network, precision=precision, lr=1e-3)
    plain = run_training(tmp_path / "plain", lines, network=network, lr=1e-3)
    # The initial loss scale of float16 is too high.
    assert [step.skipped for step in done.steps] == sorted(
        (step.skipped for step in done.steps), reverse=True
    )
    assert done.steps[0].loss == pytest.approx(plain.steps[0].loss, rel=0.02)
    assert not done.steps[-1].skipped


def test_training_float16_resumes_loss_scale(lines, tmp_path):
    settings = {"epochs": 4, "precision": "float16", "lr": 1e-3}
    uninterrupted = run_training(tmp_path / "uninterrupted", lines, **settings)
    run_training(tmp_path / "interrupted", lines, **settings, stop=stop_after(18))
    rest = run_training(tmp_path / "interrupted", lines, **settings, resume=True)
    assert [step.loss for step in rest.steps] == [step.loss for step in uninterrupted.steps[18:]]
    state = [load_state(tmp_path / name) for name in ("uninterrupted", "interrupted")]
    assert state[0] == state[1]
    assert state[0]["loss_scale"] > 1


def load_state(folder):
    with safe_open(folder / "state.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["crnn_ext_training"])


def test_training_freeze_batch_norm(lines, tmp_path):
    run_training(tmp_path / "run", lines, freeze_batch_norm=True)
    state = load_checkpoint(tmp_path / "run/last.safetensors").network.state_dict()
    assert all(tensor.eq(0).all() for name, tensor in state.items() if name.endswith("running_mean"))


def test_moving_average_decay():
    """The average forgets its start at once, later at the rate of its decay."""
    network = TrainingConfig(width=0.05, hidden=4).architecture(3).build()
    average = ExponentialMovingAverage(network, 0.5)
    expected = 0.0
    for count, value in enumerate([1.0, 2.0, 5.0, -3.0, 7.0, 4.0, 0.0, 1.0, 3.0, 9.0, 2.0, 8.0]):
        with torch.no_grad():
            network.conv1.weight.fill_(value)
            network.bn3.running_mean.fill_(value)
            network.bn3.num_batches_tracked.fill_(count)
        average.update(network)
        decay = min(0.5, count / (9 + count))
        expected = decay * expected + (1 - decay) * value
        assert average.network.conv1.weight.mean().item() == pytest.approx(expected, abs=1e-5)
        assert average.network.bn3.running_mean.mean().item() == pytest.approx(expected, abs=1e-5)
        assert average.network.bn3.num_batches_tracked == count
    assert average.count == 12


def test_training_saves_moving_average(lines, tmp_path):
    run_training(tmp_path / "run", lines, ema=0.99)
    state = load_file(tmp_path / "run/state.safetensors")
    saved = load_file(tmp_path / "run/last.safetensors")
    assert not torch.equal(state["network.conv1.weight"], state["average.conv1.weight"])
    for name, tensor in saved.items():
        assert torch.equal(tensor, state[f"average.{name}"]), name


def test_training_initial_blank_bias(lines, tmp_path):
    done = run_training(tmp_path / "run", lines)
    assert done.steps[0].blank > 0.9


def test_training_init_other_charset(lines, tmp_path):
    trained = run_training(tmp_path / "first", lines, epochs=30, lr=1e-2)
    assert trained.outcome.best_cer < 0.3
    other = write_striped_dataset(tmp_path / "lines", count=24, seed=5)
    text = (other / "labels.txt").read_text().replace("a", "x")
    (other / "labels.txt").write_text(text)
    first = tmp_path / "first/best.safetensors"
    tuned = run_training(
        tmp_path / "second", other, epochs=1, init=str(first), lr=1e-8, freeze_batch_norm=True
    )
    assert any("4 characters kept, 1 new (x), 0 dropped" in note for note in tuned.notes)
    # At lr 1e-8 the network learns almost nothing, so its readings come from the checkpoint.
    images = [striped_image(text, seed=number) for number, text in enumerate(["bcd", "dcb", "bbcd", "cd"])]
    before, after = (Recognizer.load(path)(images) for path in (first, tmp_path / "second/last.safetensors"))
    assert [reading.text for reading in after] == [reading.text for reading in before] != [""] * 4
    assert load_checkpoint(tmp_path / "second/last.safetensors").charset == Charset("abcdx")


def test_training_init_sets_config(lines, tmp_path):
    run_training(tmp_path / "first", lines, network="CRNN_v2", resize="fixed:64")
    first = str(tmp_path / "first/last.safetensors")
    with pytest.raises(ValueError, match=r"hidden must be 16 as in .*, got 24"):
        run_training(tmp_path / "second", lines, init=first, hidden=24)
    run_training(tmp_path / "second", lines, init=first)
    saved = TrainingConfig.load(tmp_path / "second/config.json")
    assert (saved.network, saved.hidden, saved.resize) == ("CRNN_v2", 16, "fixed:64")


def test_training_gradient_by_hand(lines, tmp_path):
    """Compares AdamW's first moment after one step with a gradient computed from the initial weights."""
    from crnn_ext.ctc import ctc_loss
    from crnn_ext.ocr.data import LineDataset, collate, open_lines

    settings = {"val_fraction": 0.5, "batch_pixels": 1 << 30, "clip": 1e6, "freeze_batch_norm": True}
    run_training(tmp_path / "run", lines, stop=stop_after(1), accumulate=3, **settings)
    moments = load_file(tmp_path / "run/state.safetensors")
    start = run_training(tmp_path / "none", lines, epochs=1, lr=1e-8, **settings)
    checkpoint = load_checkpoint(tmp_path / "none/last.safetensors")  # almost equal to the initial weights
    assert start.outcome.step == 1
    source = open_lines(lines)
    held_out = set(validation_split(source, [1] * len(source), 0.5, 0))
    dataset = LineDataset(source, checkpoint.preprocessing)
    batch = collate([dataset[index] for index in range(len(source)) if index not in held_out])
    targets, lengths = checkpoint.charset.encode(batch.labels)
    network = checkpoint.network.eval()
    logits = network(batch.images, batch.widths)
    loss = ctc_loss(logits, targets, network.output_lengths(batch.widths), lengths, reduction="sum")
    valid = torch.arange(len(logits)).unsqueeze(1) < network.output_lengths(batch.widths)
    assert not valid.all()
    assert start.steps[0].blank == pytest.approx((logits.argmax(-1) == 0)[valid].float().mean().item())
    (loss / lengths.sum()).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            moments[f"optimizer.{name}.exp_avg"] / 0.1, parameter.grad, atol=1e-5, rtol=1e-3, msg=name
        )


def test_training_learning_rate_follows_schedule(lines, tmp_path):
    """AdamW's first step changes every weight by the learning rate."""
    settings = {"lr": 4e-3, "warmup": 0.2, "weight_decay": 0}
    run_training(tmp_path / "none", lines, stop=stop_after(0), **settings)
    run_training(tmp_path / "one", lines, stop=stop_after(1), **settings)
    before, after = (load_file(tmp_path / name / "last.safetensors") for name in ("none", "one"))
    change = (after["conv2.weight"] - before["conv2.weight"]).abs()
    done = run_training(tmp_path / "all", lines, **settings)
    assert change.median().item() == pytest.approx(done.steps[0].learning_rate, rel=1e-2)
    expected = [one_cycle(step, done.total, 4e-3, 0.2) for step in range(done.total)]
    assert [step.learning_rate for step in done.steps] == expected


def test_training_log_and_display(lines, tmp_path):
    shown = io.StringIO()
    folder = tmp_path / "run"
    done = run_training(folder, lines, epochs=2, callbacks=[ConsoleLogger(shown, interval=0)])
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["event"] == "step"] == list(range(1, done.total + 1))
    validated = [entry for entry in entries if entry["event"] == "validation"]
    assert len(validated) == 2
    assert validated[0]["metrics"]["overall"]["cer"]["rate"]["value"] == pytest.approx(
        done.validations[0].evaluation.metrics.overall.cer.rate.value
    )
    text = shown.getvalue()
    assert f"step {done.total} of {done.total}, epoch 2: loss " in text
    assert "% of frames blank" in text
    assert "lines/s" in text
    assert " left" in text
    assert "CER " in text


def test_training_tensorboard(lines, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from crnn_ext.ocr.training.tensorboard import TensorBoardLogger

    done = run_training(tmp_path / "run", lines, callbacks=[TensorBoardLogger(tmp_path / "run/tensorboard")])
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == [step.step for step in done.steps]
    assert events.Scalars("val/cer")[0].value == pytest.approx(
        done.validations[0].evaluation.metrics.overall.cer.rate.value
    )


def test_training_init_rejects_other_files(lines, tmp_path, write_file):
    with pytest.raises(ValueError, match="safetensors"):
        run_training(tmp_path / "run", lines, init=str(write_file("no checkpoint")))
    assert not (tmp_path / "run").exists()
