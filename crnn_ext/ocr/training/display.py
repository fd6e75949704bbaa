"""What a user sees of a run: a progress bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TextIO

from tqdm import tqdm

from crnn_ext._printable import printable
from crnn_ext.ocr.intervals import Rate

from .events import Epoch, Observer, Step, Validation

# CTC first makes a network say blank everywhere. Until it stops, error rates of 100 % tell nothing.
_PLATEAU = 0.99

# From one line to the next where there is no terminal.
_SECONDS = 30.0

# Names of lines in a message.
_NAMES = 3


class Display(Observer):
    """Tells of a run on standard error.

    Args:
        file: where to, in place of standard error.
        seconds: between two lines about steps, if that is no terminal.
    """

    def __init__(self, file: TextIO | None = None, seconds: float = _SECONDS) -> None:
        self._file = file or sys.stderr
        self._seconds = seconds
        self._bar: tqdm[None] | None = None
        self._steps = 0
        self._first = 0
        self._began = self._told = 0.0
        self._was_on_plateau = False

    def started(self, step: int, steps: int) -> None:
        """Shows the bar."""
        self._first, self._steps = step, steps
        self._began = self._told = time.monotonic()
        # Two thirds of a second between two changes of the bar are enough, and a step may take long.
        self._bar = tqdm(
            initial=step, total=steps, unit="step", file=self._file, disable=None, dynamic_ncols=True
        )
        if step:
            self.note(f"going on behind step {step} of {steps}")

    def note(self, text: str) -> None:
        """Says something in a line of its own."""
        if self._bar is None or self._bar.disable:
            print(printable(text), file=self._file, flush=True)
        else:
            self._bar.write(printable(text), file=self._file)

    def stepped(self, step: Step) -> None:
        """Shows loss, blank frames and speed, and says when the plateau of blanks begins and ends."""
        assert self._bar is not None
        status = f"loss {step.loss:.3f}, {step.blank:.0%} of frames blank, {step.lines_a_second:.0f} lines/s"
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(step.step - self._bar.n)
        now = time.monotonic()
        if self._bar.disable and (now - self._told >= self._seconds or step.step == self._steps):
            self._told = now
            self.note(
                f"step {step.step} of {self._steps}, epoch {step.epoch}: {status}, "
                f"lr {step.learning_rate:.2e}, {self._left(step.step, now)} left"
            )
        on_plateau = step.blank > _PLATEAU
        if on_plateau and not self._was_on_plateau:
            self.note(
                f"step {step.step}: every frame is blank, as in the beginning of every training with CTC; "
                "error rates stay at 100 % until that ends"
            )
        elif self._was_on_plateau and not on_plateau:
            self.note(f"step {step.step}: the first frames are not blank, the network begins to read")
        self._was_on_plateau = on_plateau

    def ended_epoch(self, epoch: Epoch) -> None:
        """Says which lines of the epoch could not be trained on."""
        where = f"epoch {epoch.epoch}"
        if epoch.infeasible:
            names = _some(epoch.infeasible)
            self.note(f"{where}: too few frames for the label after distortion: {names}")
        if epoch.unreadable:
            names = _some([f"{problem.name} ({problem.detail})" for problem in epoch.unreadable])
            self.note(f"{where}: images that cannot be read: {names}")
        if epoch.skipped:
            self.note(f"{where}: {_counted(epoch.skipped, 'step')} without a finite gradient changed nothing")

    def validated(self, validation: Validation) -> None:
        """Says how well lines are read."""
        evaluation = validation.evaluation
        overall = evaluation.metrics.overall
        self.note(
            f"step {validation.step}, epoch {validation.epoch}: CER {_percent(overall.cer.rate)}, "
            f"WER {_percent(overall.wer.rate)}, {_percent(overall.accuracy)} of "
            f"{_counted(overall.lines, 'line')} right" + (", the best so far" if validation.best else "")
        )
        if evaluation.unreadable:
            names = _some([f"{line.name} ({line.reason})" for line in evaluation.unreadable])
            self.note(f"lines for validation that cannot be read: {names}")

    def ended(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _left(self, step: int, now: float) -> timedelta:
        seconds = (now - self._began) / max(step - self._first, 1) * (self._steps - step)
        return timedelta(seconds=round(seconds))


def _percent(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.value:.2%} [{rate.low:.2%}, {rate.high:.2%}]"


def _some(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_NAMES])
    return shown + (f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
