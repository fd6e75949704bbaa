"""What a run tells while it goes: to log files, TensorBoard and the display."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crnn_ext.ocr.data import DataIssue
from crnn_ext.ocr.evaluation import Evaluation


@dataclass(frozen=True)
class StepMetrics:
    """A step, as all processes have done it together.

    Attributes:
        step: its number, from 1.
        epoch: the epoch that it is in, from 1.
        loss: nats a character of the labels; NaN if no line could be trained on.
        blank: the share of frames in which the blank is the most probable class.
        learning_rate: with which it was done.
        gradient_norm: before clipping.
        labels: the characters of the labels over all frames: what 1 - `blank` comes near in the end.
        lines: of its batches.
        skipped: whether nothing has changed, as the gradient was not finite or no line could be trained on.
        seconds: that a step took, the mean since the last such report or the start; validations are left out.
        lines_a_second: since then.
    """

    step: int
    epoch: int
    loss: float
    blank: float
    labels: float
    learning_rate: float
    gradient_norm: float
    lines: int
    skipped: bool
    seconds: float
    lines_a_second: float


@dataclass(frozen=True)
class SkippedLines:
    """The lines that could not be trained on, of an epoch or of the part of it since the last such report.

    Attributes:
        epoch: its number, from 1.
        step: the last one that was done.
        ended: whether the epoch is over.
        always: how many lines no epoch has, as was said before the first.
        infeasible: names of lines that had too few frames for their labels after distortion.
        unreadable: lines without an image that can be read.
        skipped: steps that changed nothing, for want of a finite gradient or of lines.
    """

    epoch: int
    step: int
    ended: bool
    always: int
    infeasible: Sequence[str]
    unreadable: Sequence[DataIssue]
    skipped: int


@dataclass(frozen=True)
class ValidationResult:
    """How the network reads the lines for validation after a step, and whether never better before."""

    step: int
    epoch: int
    evaluation: Evaluation
    best: bool


class Callback(Protocol):
    """Is told what a run does. Only the first process has callbacks."""

    def on_train_start(self, step: int, steps: int, left_out: Sequence[DataIssue]) -> None:
        """The run begins after this step, of so many, without some lines."""

    def on_message(self, text: str) -> None:
        """Something that the user should know."""

    def on_step(self, step: StepMetrics) -> None:
        """A step was done. Not every step is reported."""

    def on_lines_skipped(self, report: SkippedLines) -> None:
        """Comes at the end of each epoch and before each saved state, so that no kill loses a name."""

    def on_validation(self, validation: ValidationResult) -> None:
        """The lines for validation were read."""

    def on_train_end(self) -> None:
        """No more will come, also after an error."""
