"""Training on small data: it learns, it names what it leaves out, it survives what goes wrong."""

import io
import json
import math

import pytest
import torch
from lines_on_disk import labels_folder, write
from striped_lines import striped, striped_folder

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr import Recognizer, load_checkpoint
from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.training import TrainingConfig, TrainingError, train
from crnn_ext.ocr.training.display import Display
from crnn_ext.ocr.training.log_file import LogFile
from crnn_ext.text import Charset

TINY = {"width": 0.05, "hidden": 16, "workers": 0, "batch_pixels": 32 * 128 * 8, "log_every": 1, "augment": 0}


class Recorder:
    """Remembers all events."""

    def __init__(self):
        self.notes, self.steps, self.epochs, self.validations = [], [], [], []

    def started(self, step, steps):
        self.first, self.total = step, steps

    def note(self, text):
        self.notes.append(text)

    def stepped(self, step):
        self.steps.append(step)

    def ended_epoch(self, epoch):
        self.epochs.append(epoch)

    def validated(self, validation):
        self.validations.append(validation)

    def ended(self):
        self.over = True


@pytest.fixture(autouse=True)
def _one_thread():
    """So small a network gains nothing from more, and loses much where other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return striped_folder(tmp_path_factory.mktemp("lines"))


def run(folder, data, *, observers=(), **settings):
    recorder = Recorder()
    options = {
        name: settings.pop(name) for name in ("resume", "criterion", "stop", "device") if name in settings
    }
    config = TrainingConfig(**{"data": str(data), "epochs": 1, **TINY, **settings})
    recorder.outcome = train(config, folder, observers=[recorder, *observers], **options)
    return recorder


def test_it_learns_to_read(lines, tmp_path):
    done = run(tmp_path / "run", lines, epochs=40, lr=1e-2)
    assert done.outcome.why == "finished"
    assert done.steps[-1].step == done.total == done.outcome.step
    assert done.steps[-1].loss < 0.2 < done.steps[0].loss
    assert (
        done.outcome.best == min(v.evaluation.metrics.overall.cer.rate.value for v in done.validations) < 0.1
    )
    recognizer = Recognizer.load(tmp_path / "run/best.safetensors")
    assert recognizer([striped("abcda", seed=77)])[0].text == "abcda"
    assert done.over


def test_the_best_network_is_kept_and_the_last(lines, tmp_path):
    done = run(tmp_path / "run", lines, epochs=4)
    best = [validation.step for validation in done.validations if validation.best][-1]
    assert load_checkpoint(tmp_path / "run/best.safetensors").metadata["step"] == str(best)
    assert load_checkpoint(tmp_path / "run/last.safetensors").metadata["step"] == str(done.total)


def test_the_settings_used_are_saved(lines, tmp_path):
    run(tmp_path / "run", lines, precision=None, workers=None)
    saved = TrainingConfig.load(tmp_path / "run/config.json")
    assert (saved.precision, saved.workers) == ("float32", 1)


def test_a_run_is_not_overwritten(lines, tmp_path):
    run(tmp_path / "run", lines)
    with pytest.raises(ValueError, match="a run is there already"):
        run(tmp_path / "run", lines)


def test_every_line_of_the_data_is_either_trained_on_or_validated_with(lines, tmp_path):
    done = run(tmp_path / "run", lines, val_fraction=0.25)
    assert done.validations[-1].evaluation.metrics.overall.lines == 12
    assert sum(step.lines for step in done.steps) == 36


def test_one_epoch_is_one_validation_unless_said_otherwise(lines, tmp_path):
    done = run(tmp_path / "run", lines, epochs=2, validate_every=3)
    assert [validation.step for validation in done.validations] == [*range(3, done.total, 3), done.total]


def test_what_cannot_be_trained_on_is_left_out_and_named(tmp_path):
    folder = striped_folder(tmp_path / "lines", count=12)
    striped("a").save(folder / "short.png")
    with open(folder / "labels.txt", "a") as labels:
        labels.write("short.png\tabcdabcdabcdabcd\nfar.png\tab\n")
    write(folder / "broken.png", b"\x89PNG\r\n")
    with open(folder / "labels.txt", "a") as labels:
        labels.write("broken.png\tab\n")
    done = run(tmp_path / "run", folder, val=str(striped_folder(tmp_path / "val", count=4)))
    notes = "\n".join(done.notes)
    assert "too few frames: 1: short.png: " in notes
    assert "missing image: 1: far.png" in notes
    assert "unreadable image: 1: broken.png" in notes
    assert sum(step.lines for step in done.steps) == 12


def test_an_image_that_goes_bad_on_the_way_is_named_and_ends_nothing(tmp_path):
    folder = striped_folder(tmp_path / "lines", count=12)
    picture = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(picture[: len(picture) // 2])  # the header is whole
    done = run(tmp_path / "run", folder, epochs=2, val=str(folder))
    assert [[problem.name for problem in epoch.unreadable] for epoch in done.epochs] == [["3.png"]] * 2
    assert [line.name for line in done.validations[0].evaluation.unreadable] == ["3.png"]


def test_nothing_to_train_on(tmp_path):
    labels_folder(tmp_path / "lines", {"a.png": "a" * 60, "b.png": "b" * 60})
    with pytest.raises(DataError, match=r"no line can be trained on.*too few frames"):
        run(tmp_path / "run", tmp_path / "lines")
    assert not (tmp_path / "run").exists()


def test_characters_outside_a_given_charset(lines, tmp_path, file):
    done = run(tmp_path / "run", lines, charset=str(file("abc")))
    assert any("characters outside the charset: " in note and "'d'" in note for note in done.notes)
    assert any("lines for validation have" in note and "'d' U+0064" in note for note in done.notes)
    assert load_checkpoint(tmp_path / "run/last.safetensors").charset == Charset("abc")


def test_a_step_without_a_finite_gradient_changes_nothing(lines, tmp_path):
    from crnn_ext.ctc import ctc_loss

    calls = []

    def criterion(logits, *targets):
        losses = ctc_loss(logits, *targets, reduction="none", zero_infinity=True)
        calls.append(logits)
        return losses * math.nan if len(calls) > 1 else losses

    after_one = run(tmp_path / "one", lines, criterion=criterion, stop=lambda: True)
    calls.clear()
    after_three = run(tmp_path / "three", lines, criterion=criterion, stop=lambda: len(calls) == 2)
    assert [step.skipped for step in after_three.steps] == [False, True, True]
    assert after_one.outcome.step == 1
    assert after_three.epochs[0].skipped == 2
    first, third = (
        load_checkpoint(tmp_path / name / "last.safetensors").network for name in ("one", "three")
    )
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, third.state_dict()[name]), name


def test_no_finite_gradient_for_long_ends_the_run(lines, tmp_path):
    with pytest.raises(TrainingError, match="the last 100 steps had no finite gradient"):
        run(
            tmp_path / "run",
            *(lines,),
            epochs=50,
            validate_every=1000,
            criterion=lambda logits, *_: logits.sum((0, 2)) * math.inf,
        )


def test_patience(lines, tmp_path):
    done = run(tmp_path / "run", lines, epochs=50, lr=1e-8, patience=2)
    assert done.outcome.why == "no progress"
    assert [validation.best for validation in done.validations] == [True, False, False]


def test_stopping_saves_what_it_takes_to_go_on(lines, tmp_path):
    steps = iter(range(100))
    done = run(tmp_path / "run", lines, epochs=2, stop=lambda: next(steps) == 3)
    assert done.outcome == ("stopped", 4, None)
    rest = run(tmp_path / "run", lines, epochs=2, resume=True)
    assert rest.first == 4
    assert rest.steps[0].step == 5


@pytest.mark.parametrize("network", ["CRNN", "CRNN_v2", "CRNN_res"])
def test_all_networks_and_precisions(lines, tmp_path, network):
    done = run(tmp_path / "run", lines, network=network, precision="bfloat16", lr=1e-3)
    assert all(math.isfinite(step.loss) and not step.skipped for step in done.steps)


def test_frozen_batch_norm_keeps_its_statistics(lines, tmp_path):
    run(tmp_path / "run", lines, freeze_batch_norm=True)
    state = load_checkpoint(tmp_path / "run/last.safetensors").network.state_dict()
    assert all(tensor.eq(0).all() for name, tensor in state.items() if name.endswith("running_mean"))


def test_a_moving_average_is_what_is_saved(lines, tmp_path):
    run(tmp_path / "plain", lines, epochs=3)
    run(tmp_path / "average", lines, epochs=3, ema=0.99)
    plain, average = (
        load_checkpoint(tmp_path / name / "last.safetensors").network.conv1.weight
        for name in ("plain", "average")
    )
    assert not torch.equal(plain, average)
    torch.testing.assert_close(plain, average, atol=0.02, rtol=0.1)


def test_one_blank_bias_for_new_networks(lines, tmp_path):
    done = run(tmp_path / "run", lines)
    assert done.steps[0].blank > 0.9


def test_going_on_with_another_charset(lines, tmp_path):
    learnt = run(tmp_path / "first", lines, epochs=30, lr=1e-2)
    assert learnt.outcome.best < 0.3
    other = striped_folder(tmp_path / "lines", count=24, seed=5)
    text = (other / "labels.txt").read_text().replace("a", "x")
    (other / "labels.txt").write_text(text)
    tuned = run(tmp_path / "second", other, epochs=1, init=str(tmp_path / "first/best.safetensors"), lr=1e-3)
    assert any("4 characters are kept, 1 are new (x), 0 go" in note for note in tuned.notes)
    # Three of four characters are known from the start.
    assert tuned.steps[0].loss < learnt.steps[0].loss
    assert load_checkpoint(tmp_path / "second/last.safetensors").charset == Charset("abcdx")


def test_log_and_display(lines, tmp_path):
    shown = io.StringIO()
    folder = tmp_path / "run"
    folder.mkdir()
    done = run(folder, lines, epochs=2, observers=[LogFile(folder), Display(shown, seconds=0)])
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


def test_tensorboard(lines, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from crnn_ext.ocr.training.tensorboard import TensorBoard

    done = run(tmp_path / "run", lines, observers=[TensorBoard(tmp_path / "run/tensorboard")])
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == [step.step for step in done.steps]
    assert events.Scalars("val/cer")[0].value == pytest.approx(
        done.validations[0].evaluation.metrics.overall.cer.rate.value
    )


def test_what_is_no_checkpoint_cannot_be_begun_from(lines, tmp_path, file):
    with pytest.raises(ValueError, match="safetensors"):
        run(tmp_path / "run", lines, init=str(file("no checkpoint")))
    assert not (tmp_path / "run").exists()
