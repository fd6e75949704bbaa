"""What a user sees of a run: a progress bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TextIO

from tqdm import tqdm

from crnn_ext._formatting import first_few, pluralize, printable
from crnn_ext.ocr.data import DataIssue
from crnn_ext.ocr.evaluation.intervals import Rate

from .callbacks import Callback, SkippedLines, StepMetrics, ValidationResult

# CTC first makes a network say blank everywhere. It does so while there are fewer frames of other classes
# than the first of these parts of the characters, and reads when there are more than the second.
_PLATEAU, _READS = 0.02, 0.2

# From one line to the next where there is no terminal.
_INTERVAL = 30.0


class ConsoleLogger(Callback):
    """Tells of a run on standard error.

    Args:
        file: where to, in place of standard error.
        interval: seconds between two lines about steps, if the file is not a terminal.
    """

    def __init__(self, file: TextIO | None = None, interval: float = _INTERVAL) -> None:
        self._file = file or sys.stderr
        self._interval = interval
        self._bar: tqdm[None] | None = None
        self._steps = 0
        self._first = 0
        self._began = self._told = 0.0
        self._on_plateau = False

    def on_train_start(self, step: int, steps: int, left_out: Sequence[DataIssue]) -> None:
        """Shows the bar."""
        self._first, self._steps = step, steps
        self._began = self._told = time.monotonic()
        self._bar = tqdm(
            initial=step, total=steps, unit="step", file=self._file, disable=None, dynamic_ncols=True
        )
        if step:
            self.on_message(f"going on after step {step} of {steps}")

    def on_message(self, text: str) -> None:
        """Says something in a line of its own."""
        if self._bar is None or self._bar.disable:
            print(printable(text), file=self._file, flush=True)
        else:
            self._bar.write(printable(text), file=self._file)

    def on_step(self, step: StepMetrics) -> None:
        """Shows loss, blank frames and speed, and says when the plateau of blanks begins and ends."""
        assert self._bar is not None
        status = f"loss {step.loss:.3f}, {step.blank:.0%} of frames blank, {step.lines_a_second:.0f} lines/s"
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(step.step - self._bar.n)
        now = time.monotonic()
        if self._bar.disable and (now - self._told >= self._interval or step.step == self._steps):
            self._told = now
            self.on_message(
                f"step {step.step} of {self._steps}, epoch {step.epoch}: {status}, "
                f"lr {step.learning_rate:.2e}, {self._left(step.step, now)} left"
            )
        self._tell_of_plateau(step)

    def _tell_of_plateau(self, step: StepMetrics) -> None:
        read = 1 - step.blank
        if not self._on_plateau and read < _PLATEAU * step.labels:
            self._on_plateau = True
            self.on_message(
                f"step {step.step}: {step.blank:.1%} of frames are blank, as when every training with CTC "
                "begins; error rates stay near 100 % until that ends"
            )
        elif self._on_plateau and read > _READS * step.labels:
            self._on_plateau = False
            self.on_message(f"step {step.step}: fewer frames are blank now, the network begins to read")

    def on_lines_skipped(self, report: SkippedLines) -> None:
        """Says which lines could not be trained on."""
        where = f"epoch {report.epoch}" + ("" if report.ended else f", to step {report.step}")
        if report.ended and report.always:
            self.on_message(
                f"{where}: without the {pluralize(report.always, 'line')} left out from the start"
            )
        if report.infeasible:
            self.on_message(
                f"{where}: {pluralize(len(report.infeasible), 'line')} had too few frames after distortion: "
                f"{first_few(report.infeasible)}"
            )
        if report.unreadable:
            names = [f"{problem.name} ({problem.detail})" for problem in report.unreadable]
            self.on_message(f"{where}: {pluralize(len(names), 'image')} cannot be read: {first_few(names)}")
        if report.skipped:
            self.on_message(
                f"{where}: {pluralize(report.skipped, 'step')} changed nothing, for want of a finite gradient "
                "or of lines"
            )

    def on_validation(self, validation: ValidationResult) -> None:
        """Says how well lines are read."""
        evaluation = validation.evaluation
        overall = evaluation.metrics.overall
        self.on_message(
            f"step {validation.step}, epoch {validation.epoch}: CER {_percent(overall.cer.rate)}, "
            f"WER {_percent(overall.wer.rate)}, {_percent(overall.accuracy)} of "
            f"{pluralize(overall.lines, 'line')} right" + (", the best so far" if validation.best else "")
        )
        if evaluation.unreadable:
            names = [f"{line.name} ({line.reason})" for line in evaluation.unreadable]
            self.on_message(f"lines for validation that cannot be read: {first_few(names)}")

    def on_train_end(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _left(self, step: int, now: float) -> timedelta:
        seconds = (now - self._began) / max(step - self._first, 1) * (self._steps - step)
        return timedelta(seconds=round(seconds))


def _percent(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.value:.2%} [{rate.low:.2%}, {rate.high:.2%}]"
