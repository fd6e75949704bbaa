"""How GPUs multiply float32: the settings are as chosen while a network runs, and come back."""

from contextlib import contextmanager, suppress

import pytest
import torch
from lines_on_disk import labels_folder
from striped_lines import striped, striped_folder

pytest.importorskip("PIL")

from crnn_ext.cli import main
from crnn_ext.ocr import Recognizer
from crnn_ext.ocr.tf32 import tf32_allowed

BACKENDS = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
FULL, ROUNDED = ["ieee", "ieee", "ieee"], ["tf32", "tf32", "ieee"]


def precisions():
    return [backend.fp32_precision for backend in BACKENDS]


@contextmanager
def settings_of_a_user(old_flag, *new):
    before = precisions()
    try:
        if old_flag is not None:
            torch.backends.cudnn.allow_tf32 = old_flag
        for backend, precision in zip(BACKENDS, new, strict=False):
            backend.fp32_precision = precision
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = True
        for backend, precision in zip(BACKENDS, before, strict=True):
            backend.fp32_precision = precision


@pytest.mark.parametrize(("allowed", "expected"), [(False, FULL), (True, ROUNDED)])
@pytest.mark.parametrize("user", [(None,), (False,), (True,), (None, "ieee", "tf32", "tf32")])
@pytest.mark.filterwarnings("ignore:Please use the new API")
def test_settings_are_as_chosen_and_come_back(allowed, expected, user):
    with settings_of_a_user(*user):
        before = precisions()
        with suppress(KeyError), tf32_allowed(allowed):
            assert precisions() == expected
            raise KeyError
        assert precisions() == before
        if user[0] is not None:
            assert torch.backends.cudnn.allow_tf32 is user[0]


def test_a_setting_inside_another():
    with tf32_allowed(True):
        with tf32_allowed(False):
            assert precisions() == FULL
        assert precisions() == ROUNDED


@pytest.fixture
def seen(monkeypatch):
    """The settings under which recognizers have run their networks."""
    seen = []
    logits = Recognizer.logits

    def recorded(self, *arguments):
        seen.append(precisions())
        return logits(self, *arguments)

    monkeypatch.setattr(Recognizer, "logits", recorded)
    return seen


def test_commands_read_in_full_float32(seen, checkpoint, images, tmp_path):
    before = precisions()
    pytest.importorskip("matplotlib")
    folder = labels_folder(tmp_path / "lines", {"0.png": "a"}).parent
    striped("a").save(folder / "0.png")
    for command in (
        ["read", checkpoint, images[0]],
        ["evaluate", checkpoint, str(folder)],
        ["plot", checkpoint, images[0], "-o", str(tmp_path / "plot.png")],
    ):
        seen.clear()
        assert main(command) == 0
        assert seen == [FULL] * len(seen) != [], command
    assert precisions() == before


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_training_is_in_full_float32_unless_it_may_round(seen, precision, tmp_path):
    pytest.importorskip("cv2")
    from test_training import after, run

    from crnn_ext.ctc import ctc_loss

    def criterion(logits, *targets):
        seen.append(precisions())
        assert logits.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
        return ctc_loss(logits, *targets, reduction="none", zero_infinity=True)

    before = precisions()
    lines = striped_folder(tmp_path / "lines", count=8)
    options = {"validate_every": 1, "stop": after(1), "epochs": 2, "criterion": criterion}
    done = run(tmp_path / "run", lines, precision=precision, **options)
    assert len(done.steps) == len(done.validations) == 1
    expected = ROUNDED if precision == "tf32" else FULL
    assert seen == [expected] * len(seen)
    assert len(seen) >= 2
    assert precisions() == before
