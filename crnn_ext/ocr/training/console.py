"""Progress of a run on a console: a progress bar on a terminal, lines of text elsewhere."""

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

# CTC training starts with a plateau on which the network predicts only blanks. It is on the plateau while the
# ratio of non-blank frames to label characters is below the first bound, and off it above the second.
_PLATEAU_BEGINS, _PLATEAU_ENDS = 0.02, 0.2

# Seconds between two lines about steps without a terminal.
_INTERVAL = 30.0


class ConsoleLogger(Callback):
    """Prints the progress of a run.

    Args:
        file: stream to print to (default: standard error).
        interval: seconds between two lines about steps if the stream is not a terminal.
    """

    def __init__(self, file: TextIO | None = None, interval: float = _INTERVAL) -> None:
        self._file = file or sys.stderr
        self._interval = interval
        self._bar: tqdm[None] | None = None
        self._total_steps = 0
        self._first_step = 0
        self._start_time = self._last_line_time = 0.0
        self._on_plateau = False

    def on_train_start(self, step: int, steps: int, skipped: Sequence[DataIssue]) -> None:
        """Shows the progress bar."""
        self._first_step, self._total_steps = step, steps
        self._start_time = self._last_line_time = time.monotonic()
        self._bar = tqdm(
            initial=step, total=steps, unit="step", file=self._file, disable=None, dynamic_ncols=True
        )
        if step:
            self.on_message(f"resuming after step {step} of {steps}")

    def on_message(self, text: str) -> None:
        """Prints the message on a line of its own."""
        if self._bar is None or self._bar.disable:
            print(printable(text), file=self._file, flush=True)
        else:
            self._bar.write(printable(text), file=self._file)

    def on_step(self, step: StepMetrics) -> None:
        """Shows loss, blank frames and speed, and reports the start and the end of the blank plateau."""
        assert self._bar is not None
        status = f"loss {step.loss:.3f}, {step.blank:.0%} of frames blank, {step.lines_a_second:.0f} lines/s"
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(step.step - self._bar.n)
        now = time.monotonic()
        last = step.step == self._total_steps
        if self._bar.disable and (now - self._last_line_time >= self._interval or last):
            self._last_line_time = now
            self.on_message(
                f"step {step.step} of {self._total_steps}, epoch {step.epoch}: {status}, "
                f"lr {step.learning_rate:.2e}, {self._time_left(step.step, now)} left"
            )
        self._report_plateau(step)

    def _report_plateau(self, step: StepMetrics) -> None:
        non_blank = 1 - step.blank
        if not self._on_plateau and non_blank < _PLATEAU_BEGINS * step.labels:
            self._on_plateau = True
            self.on_message(
                f"step {step.step}: {step.blank:.1%} of frames are blank; every CTC training starts with "
                "this plateau, and error rates stay near 100 % until it ends"
            )
        elif self._on_plateau and non_blank > _PLATEAU_ENDS * step.labels:
            self._on_plateau = False
            self.on_message(f"step {step.step}: the plateau of blank frames has ended")

    def on_lines_skipped(self, report: SkippedLines) -> None:
        """Prints which lines were skipped, and why."""
        where = f"epoch {report.epoch}" + ("" if report.ended else f", to step {report.step}")
        if report.ended and report.always:
            self.on_message(f"{where}: {pluralize(report.always, 'line')} skipped in every epoch")
        if report.infeasible:
            self.on_message(
                f"{where}: {pluralize(len(report.infeasible), 'line')} had too few frames after "
                f"augmentation: {first_few(report.infeasible)}"
            )
        if report.unreadable:
            names = [f"{problem.name} ({problem.detail})" for problem in report.unreadable]
            self.on_message(f"{where}: {pluralize(len(names), 'image')} cannot be read: {first_few(names)}")
        if report.skipped:
            self.on_message(
                f"{where}: {pluralize(report.skipped, 'step')} skipped: no finite gradient or no usable line"
            )

    def on_validation(self, validation: ValidationResult) -> None:
        """Prints the error rates."""
        evaluation = validation.evaluation
        overall = evaluation.metrics.overall
        self.on_message(
            f"step {validation.step}, epoch {validation.epoch}: CER {_percent(overall.cer.rate)}, "
            f"WER {_percent(overall.wer.rate)}, {_percent(overall.accuracy)} of "
            f"{pluralize(overall.lines, 'line')} right" + (", the best so far" if validation.best else "")
        )
        if evaluation.unreadable:
            names = [f"{line.name} ({line.reason})" for line in evaluation.unreadable]
            self.on_message(f"validation lines that cannot be read: {first_few(names)}")

    def on_train_end(self) -> None:
        """Removes the progress bar."""
        if self._bar is not None:
            self._bar.close()

    def _time_left(self, step: int, now: float) -> timedelta:
        seconds_per_step = (now - self._start_time) / max(step - self._first_step, 1)
        return timedelta(seconds=round(seconds_per_step * (self._total_steps - step)))


def _percent(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.value:.2%} [{rate.low:.2%}, {rate.high:.2%}]"
