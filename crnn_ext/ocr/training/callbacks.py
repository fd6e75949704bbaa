"""What a run reports while it trains: the callback protocol and its events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crnn_ext.ocr.data import DataIssue
from crnn_ext.ocr.evaluation import Evaluation


@dataclass(frozen=True)
class StepMetrics:
    """An optimizer step, summed over all processes.

    Attributes:
        step: number of the step, from 1.
        epoch: number of its epoch, from 1.
        loss: nats per label character; NaN if no line of the step could be trained on.
        blank: fraction of frames whose most probable class is the blank.
        labels: label characters per frame, which `1 - blank` approaches as the network learns.
        learning_rate: learning rate of the step.
        gradient_norm: norm of the gradient before clipping.
        lines: lines in the batches of the step.
        skipped: True if the weights did not change: the gradient was not finite, or no line could be
            trained on.
        seconds: mean seconds per step since the previous report or the start, without validations.
        lines_a_second: lines per second over the same time.
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
    """The lines and steps that were skipped since the previous report of this epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        step: last step done.
        ended: True if the epoch is over.
        always: number of lines that every epoch skips; `on_train_start` names them.
        infeasible: names of the lines with too few frames for their labels after augmentation.
        unreadable: lines whose image cannot be read.
        skipped: steps that changed no weight: no finite gradient, or no usable line.
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
    """The evaluation of the validation lines after a step; `best` is True if its CER is the lowest so far."""

    step: int
    epoch: int
    evaluation: Evaluation
    best: bool


class Callback(Protocol):
    """Receives the events of a run. Only rank 0 calls callbacks."""

    def on_train_start(self, step: int, steps: int, skipped: Sequence[DataIssue]) -> None:
        """Training starts after `step` of `steps`; every epoch skips the lines in `skipped`."""

    def on_message(self, text: str) -> None:
        """A message for the user."""

    def on_step(self, step: StepMetrics) -> None:
        """A step is done. Only every `log_every`-th step and the last one are reported."""

    def on_lines_skipped(self, report: SkippedLines) -> None:
        """Called at the end of each epoch and before each saved state, so a killed run loses no name."""

    def on_validation(self, validation: ValidationResult) -> None:
        """A validation is done."""

    def on_train_end(self) -> None:
        """The last event, also after an error."""
