"""The loop: steps, validations, checkpoints and what it takes to go on after any of them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from crnn_ext._printable import some
from crnn_ext.ocr.checkpoints import Checkpoint, save_checkpoint
from crnn_ext.ocr.data import Batch, DataError, LineSource, Problem, WidthBuckets
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.evaluation import Lines, evaluate
from crnn_ext.ocr.reading import Recognizer
from crnn_ext.ocr.system.distributed import World

from .config import TrainingConfig
from .events import LeftOut, Observer, Step, Validation
from .loader import BatchLoader
from .model import Criterion, Encoded
from .schedule import one_cycle
from .splits import TrainingLines, fingerprint
from .state import Progress, load_state, save_state
from .trainer import Learner

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state.safetensors"

# Steps in a row that change nothing. The gradient scaler of float16 starts high, and skips some 20 until it
# has come down far enough.
_MOST_UNCHANGED = 100


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
    """How a run ended: after its last step, for want of progress, or by a signal; and its best CER."""

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
        self._unchanged = 0
        self._clock = _Clock()
        self._left_out = _LeftOutHere()
        self._lines = fingerprint(task.source, task.lines.columns)
        self._validation = fingerprint(task.validation)

    def resume(self) -> None:
        """Goes on where the state in the folder stands.

        Raises:
            DataError: there is none, it is damaged, or it is of other lines or another number of batches a
                step.
        """
        path = self._task.folder / STATE
        tensors = self._learner.tensors()
        progress, saved = self._task.world.from_first(lambda: load_state(path, tensors))
        for found, expected, which in (
            (progress.lines, self._lines, f"the lines of {self._task.source.path}"),
            (progress.validation, self._validation, "the lines for validation"),
        ):
            if found != expected:
                raise DataError(f"{path}: {which} are others than when the run began")
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
        """Does the steps that are left, or those until the network learns no more or `stop` says so.

        Raises:
            TrainingError: the network has become unusable.
            OSError: a file cannot be written.
        """
        try:
            left_out = self._task.lines.left_out
            self._tell(lambda observer: observer.started(self._step, self.steps, left_out))
            if self._step == 0:
                self._save()  # so that a run can go on whenever it is killed
            outcome = self._outcome()
            self._clock = _Clock()
            while outcome is None:
                outcome = self._train_epoch(stop)
            return outcome
        finally:
            self._tell(lambda observer: observer.ended())

    def _train_epoch(self, stop: Callable[[], bool]) -> Outcome | None:
        """Does the steps that are left of an epoch; how the run ended, if it did."""
        config = self._task.config
        validate_every = config.validate_every or self.steps_per_epoch
        epoch, position = divmod(self._step, self.steps_per_epoch)
        batches = self._loader.epoch(epoch, position * config.accumulate)
        for _ in range(self.steps_per_epoch - position):
            done = self._do_step([next(batches) for _ in range(config.accumulate)], stop)
            with self._clock.paused():
                validates = done and (self._step % validate_every == 0 or self._step == self.steps)
                saves = validates or not done or self._step % config.save_every == 0
                if saves or self._step % self.steps_per_epoch == 0:
                    self._tell_of_left_out()  # what is told later than the state is saved, a kill might lose
                if saves:
                    self._learner.average_statistics()
                if validates:
                    self._validate()
                if saves:
                    self._save()
            outcome = self._outcome() if done else Outcome("stopped", self._step, self._best)
            if outcome is not None:
                return outcome
        return None

    def _outcome(self) -> Outcome | None:
        patience = self._task.config.patience
        if self._step == self.steps:
            return Outcome("finished", self._step, self._best)
        if patience is not None and self._without_better >= patience:
            return Outcome("no progress", self._step, self._best)
        return None

    def _do_step(self, batches: Sequence[Batch], stop: Callable[[], bool]) -> bool:
        """Does a step, unless a process is to stop; whether it did."""
        task, config = self._task, self._task.config
        encoded = [Encoded.of(batch, task.checkpoint.charset, task.checkpoint.network) for batch in batches]
        # One exchange before each step for all that the processes have to agree on.
        characters, lines, stops = task.world.sums(
            [
                sum(batch.characters for batch in encoded),
                sum(len(batch.labels) for batch in batches),
                float(stop()),
            ]
        )
        if stops:
            return False
        rate = one_cycle(self._step, self.steps, config.lr, config.warmup)
        learnt = self._learner.step(encoded, int(characters), rate)
        self._step += 1
        self._clock.count(lines)
        self._left_out.add(batches, encoded, learnt.changed)
        self._check_usable(learnt.changed, characters > 0)
        if self._step % config.log_every == 0 or self._step == self.steps:
            loss, blank, frames = task.world.sums([*learnt.sums.tolist(), learnt.frames])
            seconds, lines_a_second = self._clock.speed()
            step = Step(
                step=self._step,
                epoch=self._epoch,
                loss=loss / characters if characters else math.nan,
                blank=blank / max(frames, 1),
                labels=characters / max(frames, 1),
                learning_rate=rate,
                gradient_norm=learnt.gradient_norm,
                lines=int(lines),
                skipped=not learnt.changed,
                seconds=seconds,
                lines_a_second=lines_a_second,
            )
            self._tell(lambda observer: observer.stepped(step))
        return True

    def _check_usable(self, changed: bool, any_lines: bool) -> None:
        """Raises TrainingError if nothing has changed for long."""
        self._unchanged = 0 if changed else self._unchanged + 1
        if self._unchanged < _MOST_UNCHANGED:
            return
        if any_lines:
            raise TrainingError(
                f"the last {self._unchanged} steps had no finite gradient, the last of them step "
                f"{self._step}: a lower lr or another precision may help"
            )
        raise TrainingError(
            f"of the last {self._unchanged} steps no line could be trained on: {some(self._left_out.names())}"
        )

    @property
    def _epoch(self) -> int:
        """Of the last step, counted from 1."""
        return (self._step - 1) // self.steps_per_epoch + 1

    def _validate(self) -> None:
        """Reads the lines for validation and keeps the network if it was never better."""
        task = self._task
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
        validation = Validation(self._step, self._epoch, evaluation, better)
        self._tell(lambda observer: observer.validated(validation))

    def _save(self) -> None:
        """Writes the state, and the network as a checkpoint."""
        self._save_checkpoint(LAST, {})
        if self._task.world.rank == 0:
            progress = Progress(
                self._step,
                self._best,
                self._without_better,
                self._batches_a_step,
                self._lines,
                self._validation,
                *self._learner.loss_scale,
            )
            save_state(self._task.folder / STATE, progress, self._learner.tensors())

    def _save_checkpoint(self, name: str, more: dict[str, str]) -> None:
        if self._task.world.rank == 0:
            metadata = {"training_data": Path(self._task.config.data).name, "step": str(self._step), **more}
            shown = self._task.checkpoint._replace(network=self._learner.shown, metadata=metadata)
            save_checkpoint(self._task.folder / name, shown)

    def _tell_of_left_out(self) -> None:
        here, self._left_out = self._left_out, _LeftOutHere()
        if here.steps == 0:
            return
        parts = self._task.world.gather((here.infeasible, here.unreadable))
        report = LeftOut(
            epoch=self._epoch,
            step=self._step,
            ended=self._step % self.steps_per_epoch == 0,
            always=len(self._task.lines.left_out),
            infeasible=[name for names, _ in parts for name in names],
            unreadable=[problem for _, problems in parts for problem in problems],
            skipped=here.unchanged,
        )
        self._tell(lambda observer: observer.left_out(report))

    @property
    def _batches_a_step(self) -> int:
        return self._task.world.ranks * self._task.config.accumulate

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            event(observer)


class _LeftOutHere:
    """What this process could not train on since the last report."""

    def __init__(self) -> None:
        self.infeasible: list[str] = []
        self.unreadable: list[Problem] = []
        self.unchanged = 0
        self.steps = 0

    def add(self, batches: Sequence[Batch], encoded: Sequence[Encoded], changed: bool) -> None:
        """Counts what of the batches of a step it was, and whether the step has changed nothing."""
        for batch, part in zip(batches, encoded, strict=True):
            self.unreadable += batch.unreadable
            self.infeasible += part.infeasible
        self.unchanged += not changed
        self.steps += 1

    def names(self) -> list[str]:
        """All of them, with what is wrong."""
        return [*map(str, self.unreadable), *(f"{name}: too few frames" for name in self.infeasible)]


class _Clock:
    """Measures how long steps take."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._began = time.perf_counter()
        self._steps = 0
        self._lines = 0.0

    def count(self, lines: float) -> None:
        """A step was done, with so many lines."""
        self._steps += 1
        self._lines += lines

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no part of the steps' time."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def speed(self) -> tuple[float, float]:
        """Seconds a step, and lines a second, since the last call."""
        seconds = time.perf_counter() - self._began
        speed = seconds / self._steps, self._lines / max(seconds, 1e-9)
        self._restart()
        return speed
