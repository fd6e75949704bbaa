"""TF32 settings of torch: set while a network runs, and restored afterwards."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from helpers.dataset_files import write_labels_dataset
from helpers.paths import ROOT
from helpers.striped_lines import striped_image, write_striped_dataset

pytest.importorskip("PIL")

from crnn_ext.cli import main
from crnn_ext.ocr import Recognizer
from crnn_ext.ocr.system.tf32 import tf32_allowed

BACKENDS = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
FULL, ROUNDED = ["ieee", "ieee", "ieee"], ["tf32", "tf32", "ieee"]


def settings():
    return [backend.fp32_precision for backend in BACKENDS]


def precisions():
    """The effective precisions."""
    return ["ieee" if setting == "none" else setting for setting in settings()]


def older_flags():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def run_in_subprocess(program, allowed):
    """Runs the program, which defines `inside` and `after`, in a process whose settings it may change."""
    preamble = f"""
import torch
from test_tf32 import BACKENDS, FULL, ROUNDED, older_flags, precisions, settings
from crnn_ext.ocr.system.tf32 import tf32_allowed

expected = ROUNDED if {allowed} else FULL
"""
    check = f"""
before = settings()
try:
    with tf32_allowed({allowed}):
        assert precisions() == expected, precisions()
        inside()
        raise KeyError
except KeyError:
    pass
assert settings() == before, (settings(), before)
after()
"""
    path = os.pathsep.join([str(ROOT / "tests"), str(Path(__file__).parent)])
    command = [sys.executable, "-c", preamble + textwrap.dedent(program) + check]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(
    "program",
    [
        # The default settings of torch: afterwards, they still follow the more general ones.
        """
        inside = older_flags
        def after():
            torch.backends.cudnn.allow_tf32 = False
            assert precisions() == FULL
            torch.backends.fp32_precision = "tf32"
            assert settings() == ["tf32"] * 3
        """,
        # The older flags set by the user; they stay readable.
        """
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("medium")
        inside = older_flags
        def after():
            assert older_flags() == (False, "medium")
        """,
        # Flags that are frozen, as after torch.library.opcheck.
        """
        torch.backends.disable_global_flags()
        inside = older_flags
        after = lambda: None
        """,
        # The newer settings set by the user.
        """
        for backend, precision in zip(BACKENDS, ["ieee", "tf32", "tf32"]):
            backend.fp32_precision = precision
        inside = after = lambda: None
        """,
        """
        torch.backends.fp32_precision = "tf32"
        inside = lambda: None
        def after():
            torch.backends.fp32_precision = "none"
            assert precisions() == ROUNDED
        """,
    ],
)
def test_tf32_settings_are_set_and_restored(program, allowed):
    run_in_subprocess(program, allowed)


def test_tf32_nested_settings():
    with tf32_allowed(True):
        with tf32_allowed(False):
            assert precisions() == FULL
        assert precisions() == ROUNDED


@pytest.fixture
def recorded(monkeypatch):
    """The precisions under which recognizers run their networks."""
    recorded = []
    original = Recognizer.logits

    def logits(self, *arguments):
        recorded.append(precisions())
        return original(self, *arguments)

    monkeypatch.setattr(Recognizer, "logits", logits)
    return recorded


def test_tf32_off_in_commands(recorded, checkpoint, images, tmp_path):
    before = precisions()
    pytest.importorskip("matplotlib")
    folder = write_labels_dataset(tmp_path / "lines", {"0.png": "a"}).parent
    striped_image("a").save(folder / "0.png")
    for command in (
        ["read", checkpoint, images[0]],
        ["evaluate", checkpoint, str(folder)],
        ["plot", checkpoint, images[0], "-o", str(tmp_path / "plot.png")],
    ):
        recorded.clear()
        assert main(command) == 0
        assert recorded == [FULL] * len(recorded) != [], command
    assert precisions() == before


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_tf32_in_training_by_precision(recorded, precision, tmp_path):
    pytest.importorskip("cv2")
    from helpers.training_runs import run_training, stop_after

    from crnn_ext.ctc import ctc_loss

    def criterion(logits, *targets):
        recorded.append(precisions())
        assert logits.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
        return ctc_loss(logits, *targets, reduction="none", zero_infinity=True)

    before = precisions()
    lines = write_striped_dataset(tmp_path / "lines", count=8)
    options = {"validate_every": 1, "stop": stop_after(1), "epochs": 2, "criterion": criterion}
    done = run_training(tmp_path / "run", lines, precision=precision, **options)
    assert len(done.steps) == len(done.validations) == 1
    expected = ROUNDED if precision == "tf32" else FULL
    assert recorded == [expected] * len(recorded)
    assert len(recorded) >= 2
    assert precisions() == before
