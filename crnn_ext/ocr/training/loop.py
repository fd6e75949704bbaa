"""The loop: steps, validations, checkpoints and what it takes to go on after any of them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from crnn_ext.ocr.checkpoint import Checkpoint, save_checkpoint
from crnn_ext.ocr.data import Batch, DataError, LineSource, Problem, WidthBuckets
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.evaluation import Lines, evaluate
from crnn_ext.ocr.recognizer import Recognizer
from crnn_ext.ocr.world import World

from .config import TrainingConfig
from .events import Epoch, Observer, Step, Validation
from .learner import Learner
from .lines import TrainingLines, fingerprint
from .loader import BatchLoader
from .model import Criterion, Encoded
from .schedule import one_cycle
from .state import Progress, load_state, save_state

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state.safetensors"

# The gradient scaler of float16 starts high, and skips some 20 steps until it has come down far enough.
_MOST_SKIPPED_IN_A_ROW = 100


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what may help."""


@dataclass(frozen=True)
class Task:
    """What is trained on what, and where.

    Attributes:
        config: all settings, those that may be left open decided.
        folder: takes checkpoints and state.
        checkpoint: the network, on the CPU, with its charset and preprocessing.
        source: the lines.
        lines: which of them are trained on.
        validation: the lines that tell how far the network is.
        world: the processes that train together.
        device: of this process.
        criterion: the loss.
    """

    config: TrainingConfig
    folder: Path
    checkpoint: Checkpoint
    source: LineSource
    lines: TrainingLines
    validation: Lines
    world: World
    device: torch.device
    criterion: Criterion


class Outcome(NamedTuple):
    """How a run ended: behind its last step, for want of progress, or by a signal; and its best CER."""

    why: Literal["finished", "no progress", "stopped"]
    step: int
    best: float | None


class Run:
    """A run between two of its steps."""

    def __init__(self, task: Task, observers: Sequence[Observer]) -> None:
        config, world = task.config, task.world
        self._task, self._observers = task, observers
        self._sampler = WidthBuckets(
            task.lines.columns,
            config.batch_pixels,
            height=task.checkpoint.preprocessing.height,
            seed=config.seed,
            rank=world.rank,
            ranks=world.ranks,
            accumulate=config.accumulate,
        )
        self.steps_per_epoch = self._sampler.batches_per_epoch // config.accumulate
        self.steps = config.epochs * self.steps_per_epoch
        self._loader = BatchLoader(
            task.source,
            task.checkpoint.preprocessing,
            self._sampler,
            Augmentation(config.augment) if config.augment else None,
            seed=config.seed,
            workers=config.workers or 0,
            pinned=task.device.type == "cuda",
        )
        self._learner = Learner(config, task.checkpoint, world, task.device, task.criterion)
        self._step = 0
        self._best: float | None = None
        self._without_better = 0
        self._skipped_in_a_row = 0
        self._fingerprint = fingerprint(task.source, task.lines.columns)

    def resume(self) -> None:
        """Goes on where the state in the folder stands.

        Raises:
            DataError: there is none, it is damaged, or it is of other lines or another number of batches a
                step.
        """
        path = self._task.folder / STATE
        tensors = self._learner.tensors()
        progress, saved = self._task.world.from_first(lambda: load_state(path, tensors))
        if progress.lines != self._fingerprint:
            raise DataError(
                f"{path}: the lines of {self._task.source.path} are others than when the run began"
            )
        if progress.batches_a_step != self._batches_a_step:
            raise DataError(
                f"{path}: a step was of {progress.batches_a_step} batches, those of all processes together, "
                f"and now {self._task.world.ranks} processes with accumulate {self._task.config.accumulate} "
                f"would make it {self._batches_a_step}"
            )
        if progress.step > self.steps:
            raise DataError(f"{path}: it is at step {progress.step}, and the run has {self.steps}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])
        self._learner.loss_scale = progress.loss_scale, progress.steps_at_scale
        self._step, self._best = progress.step, progress.best
        self._without_better = progress.without_better

    def train(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Does all steps that are left, or those until the network learns no more, or `stop` says so.

        Raises:
            TrainingError: the network has become unusable.
            OSError: a file cannot be written.
        """
        config = self._task.config
        validate_every = config.validate_every or self.steps_per_epoch
        self._tell(lambda observer: observer.started(self._step, self.steps))
        outcome = self._outcome()
        while outcome is None:
            epoch, position = divmod(self._step, self.steps_per_epoch)
            batches = self._loader.epoch(epoch, position * config.accumulate)
            report = _EpochCounts()
            stopped = False
            for _ in range(self.steps_per_epoch - position):
                stopped = self._do_step([next(batches) for _ in range(config.accumulate)], report, stop)
                with report.paused():
                    validated = self._step % validate_every == 0 or self._step == self.steps
                    if validated:
                        self._validate()
                    if validated or stopped or self._step % config.save_every == 0:
                        self._save()
                outcome = self._outcome(stopped)
                if outcome is not None:
                    break
            del batches  # ends its processes
            self._end_epoch(epoch, report)
        self._tell(lambda observer: observer.ended())
        return outcome

    def _outcome(self, stopped: bool = False) -> Outcome | None:
        patience = self._task.config.patience
        if self._step == self.steps:
            return Outcome("finished", self._step, self._best)
        if patience is not None and self._without_better >= patience:
            return Outcome("no progress", self._step, self._best)
        return Outcome("stopped", self._step, self._best) if stopped else None

    def _do_step(self, batches: Sequence[Batch], report: "_EpochCounts", stop: Callable[[], bool]) -> bool:
        """One step; whether a process was asked to stop."""
        task, config = self._task, self._task.config
        encoded = [Encoded.of(batch, task.checkpoint.charset, task.checkpoint.network) for batch in batches]
        characters, lines, stops = task.world.sums(
            [
                sum(batch.characters for batch in encoded),
                sum(len(batch.labels) for batch in batches),
                float(stop()),
            ]
        )
        rate = one_cycle(self._step, self.steps, config.lr, config.warmup)
        learnt = self._learner.step(encoded, int(characters), rate)
        skipped = not learnt.changed
        report.add(batches, encoded, lines, skipped)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        self._step += 1
        if self._step % config.log_every == 0 or self._step == self.steps:
            total, blank, live = task.world.sums(learnt.sums.tolist())
            seconds, rate_of_lines = report.speed()
            step = Step(
                self._step,
                (self._step - 1) // self.steps_per_epoch + 1,
                total / characters if characters else math.nan,
                blank / max(live, 1),
                rate,
                learnt.gradient_norm,
                int(lines),
                skipped,
                seconds,
                rate_of_lines,
            )
            self._tell(lambda observer: observer.stepped(step))
        if self._skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"the last {self._skipped_in_a_row} steps had no finite gradient, the last of them step "
                f"{self._step}: a lower lr or another precision may help"
            )
        return stops > 0

    def _validate(self) -> None:
        """Reads the lines for validation and keeps the network if it was never better."""
        task = self._task
        self._learner.average_statistics()
        recognizer = Recognizer(self._learner.shown, task.checkpoint.charset, task.checkpoint.preprocessing)
        try:
            evaluation = evaluate(recognizer, task.validation, world=task.world)
        except ValueError as error:
            raise TrainingError(f"step {self._step}: {error}; a lower lr may help") from error
        self._learner.set_training()
        rate = evaluation.metrics.overall.cer.rate
        if rate is None:
            raise TrainingError("no line for validation could be read")
        better = self._best is None or rate.value < self._best
        self._without_better = 0 if better else self._without_better + 1
        if better:
            self._best = rate.value
            self._save_checkpoint(BEST, {"validation_cer": f"{rate.value:.6f}"})
        epoch = (self._step - 1) // self.steps_per_epoch + 1
        self._tell(lambda observer: observer.validated(Validation(self._step, epoch, evaluation, better)))

    def _save(self) -> None:
        """Writes the state, and the network as a checkpoint."""
        self._learner.average_statistics()
        self._save_checkpoint(LAST, {})
        if self._task.world.rank == 0:
            progress = Progress(
                self._step,
                self._best,
                self._without_better,
                self._batches_a_step,
                self._fingerprint,
                *self._learner.loss_scale,
            )
            save_state(self._task.folder / STATE, progress, self._learner.tensors())

    def _save_checkpoint(self, name: str, more: dict[str, str]) -> None:
        if self._task.world.rank == 0:
            metadata = {"training_data": self._task.config.data, "step": str(self._step), **more}
            shown = self._task.checkpoint._replace(network=self._learner.shown, metadata=metadata)
            save_checkpoint(self._task.folder / name, shown)

    def _end_epoch(self, epoch: int, report: "_EpochCounts") -> None:
        parts = self._task.world.gather((report.infeasible, report.unreadable))
        infeasible = [name for names, _ in parts for name in names]
        unreadable = [problem for _, problems in parts for problem in problems]
        ended = Epoch(epoch + 1, infeasible, unreadable, report.skipped)
        self._tell(lambda observer: observer.ended_epoch(ended))

    @property
    def _batches_a_step(self) -> int:
        return self._task.world.ranks * self._task.config.accumulate

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            event(observer)


class _EpochCounts:
    """What is counted during an epoch by this process."""

    def __init__(self) -> None:
        self.infeasible: list[str] = []
        self.unreadable: list[Problem] = []
        self.skipped = 0
        self._lines = 0.0
        self._since = time.perf_counter()

    def add(self, batches: Sequence[Batch], encoded: Sequence[Encoded], lines: float, skipped: bool) -> None:
        """A step was done."""
        for batch, part in zip(batches, encoded, strict=True):
            self.unreadable += batch.unreadable
            self.infeasible += part.infeasible
        self._lines += lines
        self.skipped += skipped

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no part of the steps' time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def speed(self) -> tuple[float, float]:
        """Seconds since the last call, and lines a second since then."""
        now = time.perf_counter()
        seconds, lines = now - self._since, self._lines
        self._since, self._lines = now, 0.0
        return seconds, lines / max(seconds, 1e-9)
