"""The curves of a run in TensorBoard."""

from collections.abc import Sequence
from pathlib import Path

from crnn_ext.ocr.data import DataIssue
from crnn_ext.ocr.evaluation.intervals import Rate

from .callbacks import Callback, SkippedLines, StepMetrics, ValidationResult

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise ImportError(
        "TensorBoard logs need tensorboard, which is not installed: install crnn_ext with its extra [train]",
        name="tensorboard",
    ) from error


class TensorBoardLogger(Callback):
    """Writes TensorBoard event files to a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_train_start(self, step: int, steps: int, skipped: Sequence[DataIssue]) -> None:
        """Opens the file; TensorBoard ignores the points of earlier files after `step`."""
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def on_message(self, text: str) -> None:
        """Messages are for the user."""

    def on_step(self, step: StepMetrics) -> None:
        """Adds a point to the training curves."""
        self._add(
            step.step,
            {
                "train/loss": step.loss,
                "train/blank_share": step.blank,
                "train/learning_rate": step.learning_rate,
                "train/gradient_norm": step.gradient_norm,
                "train/lines_per_second": step.lines_a_second,
            },
        )

    def on_lines_skipped(self, report: SkippedLines) -> None:
        """Skipped lines have no curve."""

    def on_validation(self, validation: ValidationResult) -> None:
        """Adds a point to the validation curves."""
        overall = validation.evaluation.metrics.overall
        rates: dict[str, Rate | None] = {
            "val/cer": overall.cer.rate,
            "val/wer": overall.wer.rate,
            "val/line_accuracy": overall.accuracy,
        }
        self._add(validation.step, {name: rate.value for name, rate in rates.items() if rate is not None})

    def on_train_end(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()  # type: ignore[no-untyped-call]

    def _add(self, step: int, values: dict[str, float]) -> None:
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]
