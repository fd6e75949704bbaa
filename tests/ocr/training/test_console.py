"""The console output of a run."""

import io

import pytest

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr.data import DataIssue
from crnn_ext.ocr.training import SkippedLines, StepMetrics
from crnn_ext.ocr.training.console import ConsoleLogger


class Terminal(io.StringIO):
    def isatty(self):
        return True


def step(number, blank=0.8):
    return StepMetrics(
        step=number,
        epoch=1,
        loss=1.25,
        blank=blank,
        labels=0.3,
        learning_rate=1e-3,
        gradient_norm=1.0,
        lines=4,
        skipped=False,
        seconds=1.0,
        lines_a_second=4.0,
    )


def test_display_lines_without_terminal(clock):
    shown = io.StringIO()
    console = ConsoleLogger(shown, interval=30)
    console.on_train_start(100, 200, [])
    for number in range(101, 161):
        clock.now += 1
        console.on_step(step(number))
    assert shown.getvalue().splitlines() == [
        "resuming after step 100 of 200",
        "step 130 of 200, epoch 1: loss 1.250, 80% of frames blank, 4 lines/s, lr 1.00e-03, 0:01:10 left",
        "step 160 of 200, epoch 1: loss 1.250, 80% of frames blank, 4 lines/s, lr 1.00e-03, 0:00:40 left",
    ]


def test_display_bar_on_terminal(clock):
    shown = Terminal()
    console = ConsoleLogger(shown)
    console.on_train_start(0, 10, [])
    for number in range(1, 11):
        console.on_step(step(number))
    console.on_train_end()
    assert "10/10" in shown.getvalue()
    assert "loss 1.250, 80% of frames blank, 4 lines/s" in shown.getvalue()
    assert "step 10 of 10" not in shown.getvalue()


def test_display_reports_blank_plateau_once():
    shown = io.StringIO()
    console = ConsoleLogger(shown, interval=1e9)
    console.on_train_start(0, 100, [])
    for number, blank in enumerate([0.9, 0.999, 1.0, 0.97, 0.999, 0.7, 0.8, 0.7], 1):
        console.on_step(step(number, blank))
    assert shown.getvalue().splitlines() == [
        "step 2: 99.9% of frames are blank; every CTC training starts with this plateau, and error rates "
        "stay near 100 % until it ends",
        "step 6: the plateau of blank frames has ended",
    ]


def test_display_skipped_lines():
    shown = io.StringIO()
    console = ConsoleLogger(shown)
    unreadable = [DataIssue(f"{number}\n.png", "unreadable image", "cut short") for number in range(5)]
    console.on_lines_skipped(SkippedLines(2, 30, False, 12, ["b.png"], [], 0))
    console.on_lines_skipped(SkippedLines(2, 40, True, 12, ["a.png"], unreadable, 1))
    assert shown.getvalue().splitlines() == [
        "epoch 2, to step 30: 1 line had too few frames after augmentation: b.png",
        "epoch 2: 12 lines skipped in every epoch",
        "epoch 2: 1 line had too few frames after augmentation: a.png",
        r"epoch 2: 5 images cannot be read: 0\n.png (cut short); 1\n.png (cut short); 2\n.png (cut short); "
        "and 2 more",
        "epoch 2: 1 step skipped: no finite gradient or no usable line",
    ]
