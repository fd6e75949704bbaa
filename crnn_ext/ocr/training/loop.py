"""The loop: steps, validations, checkpoints and what it takes to go on after any of them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from crnn_ext._formatting import first_few
from crnn_ext.ocr.checkpoints import Checkpoint, save_checkpoint
from crnn_ext.ocr.data import Batch, BucketBatchSampler, DataError, DataIssue, LineSource
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.evaluation import LabeledLines, evaluate
from crnn_ext.ocr.reading import Recognizer
from crnn_ext.ocr.system.distributed import ProcessGroup

from .callbacks import Callback, SkippedLines, StepMetrics, ValidationResult
from .config import TrainingConfig
from .loader import BatchLoader
from .model import Criterion, EncodedBatch
from .schedule import one_cycle
from .splits import TrainingLines, fingerprint
from .state import Progress, load_state, save_state
from .trainer import Trainer

BEST_CHECKPOINT, LAST_CHECKPOINT, STATE_FILE = "best.safetensors", "last.safetensors", "state.safetensors"

# Steps in a row that change nothing. The gradient scaler of float16 starts high, and skips some 20 until it
# has come down far enough.
_MOST_UNCHANGED = 100


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what may help."""


@dataclass(frozen=True)
class TrainingSetup:
    """What is trained on what, and where.

    Attributes:
        config: all settings, those that may be left open decided.
        folder: takes checkpoints and state.
        checkpoint: the network, on the CPU, with its charset and preprocessing.
        source: the lines.
        lines: which of them are trained on.
        validation: the lines that tell how far the network is.
        group: the processes that train together.
        device: of this process.
        criterion: the loss.
    """

    config: TrainingConfig
    folder: Path
    checkpoint: Checkpoint
    source: LineSource
    lines: TrainingLines
    validation: LabeledLines
    group: ProcessGroup
    device: torch.device
    criterion: Criterion


class TrainingResult(NamedTuple):
    """How a run ended: after its last step, for want of progress, or by a signal; and its best CER."""

    reason: Literal["finished", "no progress", "stopped"]
    step: int
    best_cer: float | None


class TrainingLoop:
    """A run between two of its steps."""

    def __init__(self, setup: TrainingSetup, callbacks: Sequence[Callback]) -> None:
        config, group = setup.config, setup.group
        self._setup, self._callbacks = setup, callbacks
        self._sampler = BucketBatchSampler(
            setup.lines.columns,
            config.batch_pixels,
            height=setup.checkpoint.preprocessing.height,
            seed=config.seed,
            rank=group.rank,
            world_size=group.world_size,
            accumulate=config.accumulate,
        )
        self.steps_per_epoch = self._sampler.batches_per_epoch // config.accumulate
        self.steps = config.epochs * self.steps_per_epoch
        self._loader = BatchLoader(
            setup.source,
            setup.checkpoint.preprocessing,
            self._sampler,
            Augmentation(config.augment) if config.augment else None,
            seed=config.seed,
            workers=config.workers or 0,
            pinned=setup.device.type == "cuda",
        )
        self._trainer = Trainer(config, setup.checkpoint, group, setup.device, setup.criterion)
        self._step = 0
        self._best: float | None = None
        self._without_better = 0
        self._unchanged = 0
        self._clock = _Clock()
        self._left_out = _LeftOutHere()
        self._lines = fingerprint(setup.source, setup.lines.columns)
        self._validation = fingerprint(setup.validation)

    def resume(self) -> None:
        """Goes on where the state in the folder stands.

        Raises:
            DataError: there is none, it is damaged, or it is of other lines or another number of batches a
                step.
        """
        path = self._setup.folder / STATE_FILE
        tensors = self._trainer.tensors()
        progress, saved = self._setup.group.broadcast_from_rank0(lambda: load_state(path, tensors))
        for found, expected, which in (
            (progress.lines, self._lines, f"the lines of {self._setup.source.path}"),
            (progress.validation, self._validation, "the lines for validation"),
        ):
            if found != expected:
                raise DataError(f"{path}: {which} are others than when the run began")
        if progress.batches_a_step != self._batches_a_step:
            raise DataError(
                f"{path}: a step was of {progress.batches_a_step} batches, those of all processes together, "
                f"and now {self._setup.group.world_size} processes with accumulate {self._setup.config.accumulate} "
                f"would make it {self._batches_a_step}"
            )
        if progress.step > self.steps:
            raise DataError(f"{path}: it is at step {progress.step}, and the run has {self.steps}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])
        self._trainer.loss_scale = progress.loss_scale, progress.steps_at_scale
        self._step, self._best = progress.step, progress.best
        self._without_better = progress.without_better

    def train(self, stop: Callable[[], bool] = lambda: False) -> TrainingResult:
        """Does the steps that are left, or those until the network learns no more or `stop` says so.

        Raises:
            TrainingError: the network has become unusable.
            OSError: a file cannot be written.
        """
        try:
            left_out = self._setup.lines.left_out
            self._tell(lambda callback: callback.on_train_start(self._step, self.steps, left_out))
            if self._step == 0:
                self._save()  # so that a run can go on whenever it is killed
            result = self._result_if_ended()
            self._clock = _Clock()
            while result is None:
                result = self._train_epoch(stop)
            return result
        finally:
            self._tell(lambda callback: callback.on_train_end())

    def _train_epoch(self, stop: Callable[[], bool]) -> TrainingResult | None:
        """Does the steps that are left of an epoch; how the run ended, if it did."""
        config = self._setup.config
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
                    self._trainer.average_batch_norm_statistics()
                if validates:
                    self._validate()
                if saves:
                    self._save()
            result = self._result_if_ended() if done else TrainingResult("stopped", self._step, self._best)
            if result is not None:
                return result
        return None

    def _result_if_ended(self) -> TrainingResult | None:
        patience = self._setup.config.patience
        if self._step == self.steps:
            return TrainingResult("finished", self._step, self._best)
        if patience is not None and self._without_better >= patience:
            return TrainingResult("no progress", self._step, self._best)
        return None

    def _do_step(self, batches: Sequence[Batch], stop: Callable[[], bool]) -> bool:
        """Does a step, unless a process is to stop; whether it did."""
        setup, config = self._setup, self._setup.config
        encoded = [
            EncodedBatch.from_batch(batch, setup.checkpoint.charset, setup.checkpoint.network)
            for batch in batches
        ]
        # One exchange before each step for all that the processes have to agree on.
        characters, lines, stops = setup.group.all_reduce_sum(
            [
                sum(batch.characters for batch in encoded),
                sum(len(batch.labels) for batch in batches),
                float(stop()),
            ]
        )
        if stops:
            return False
        rate = one_cycle(self._step, self.steps, config.lr, config.warmup)
        result = self._trainer.step(encoded, int(characters), rate)
        self._step += 1
        self._clock.count(lines)
        self._left_out.add(batches, encoded, result.updated)
        self._check_usable(result.updated, characters > 0)
        if self._step % config.log_every == 0 or self._step == self.steps:
            loss, blank, frames = setup.group.all_reduce_sum([*result.sums.tolist(), result.frames])
            seconds, lines_a_second = self._clock.speed()
            step = StepMetrics(
                step=self._step,
                epoch=self._epoch,
                loss=loss / characters if characters else math.nan,
                blank=blank / max(frames, 1),
                labels=characters / max(frames, 1),
                learning_rate=rate,
                gradient_norm=result.gradient_norm,
                lines=int(lines),
                skipped=not result.updated,
                seconds=seconds,
                lines_a_second=lines_a_second,
            )
            self._tell(lambda callback: callback.on_step(step))
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
            f"of the last {self._unchanged} steps no line could be trained on: {first_few(self._left_out.names())}"
        )

    @property
    def _epoch(self) -> int:
        """Of the last step, counted from 1."""
        return (self._step - 1) // self.steps_per_epoch + 1

    def _validate(self) -> None:
        """Reads the lines for validation and keeps the network if it was never better."""
        setup = self._setup
        recognizer = Recognizer(
            self._trainer.eval_network, setup.checkpoint.charset, setup.checkpoint.preprocessing
        )
        try:
            evaluation = evaluate(recognizer, setup.validation, group=setup.group)
        except ValueError as error:
            raise TrainingError(f"step {self._step}: {error}; a lower lr may help") from error
        self._trainer.set_train_mode()
        rate = evaluation.metrics.overall.cer.rate
        if rate is None:
            raise TrainingError("no line for validation could be read")
        better = self._best is None or rate.value < self._best
        self._without_better = 0 if better else self._without_better + 1
        if better:
            self._best = rate.value
            self._save_checkpoint(BEST_CHECKPOINT, {"validation_cer": f"{rate.value:.6f}"})
        validation = ValidationResult(self._step, self._epoch, evaluation, better)
        self._tell(lambda callback: callback.on_validation(validation))

    def _save(self) -> None:
        """Writes the state, and the network as a checkpoint."""
        self._save_checkpoint(LAST_CHECKPOINT, {})
        if self._setup.group.rank == 0:
            progress = Progress(
                self._step,
                self._best,
                self._without_better,
                self._batches_a_step,
                self._lines,
                self._validation,
                *self._trainer.loss_scale,
            )
            save_state(self._setup.folder / STATE_FILE, progress, self._trainer.tensors())

    def _save_checkpoint(self, name: str, more: dict[str, str]) -> None:
        if self._setup.group.rank == 0:
            metadata = {"training_data": Path(self._setup.config.data).name, "step": str(self._step), **more}
            shown = self._setup.checkpoint._replace(network=self._trainer.eval_network, metadata=metadata)
            save_checkpoint(self._setup.folder / name, shown)

    def _tell_of_left_out(self) -> None:
        here, self._left_out = self._left_out, _LeftOutHere()
        if here.steps == 0:
            return
        parts = self._setup.group.all_gather((here.infeasible, here.unreadable))
        report = SkippedLines(
            epoch=self._epoch,
            step=self._step,
            ended=self._step % self.steps_per_epoch == 0,
            always=len(self._setup.lines.left_out),
            infeasible=[name for names, _ in parts for name in names],
            unreadable=[problem for _, problems in parts for problem in problems],
            skipped=here.unchanged,
        )
        self._tell(lambda callback: callback.on_lines_skipped(report))

    @property
    def _batches_a_step(self) -> int:
        return self._setup.group.world_size * self._setup.config.accumulate

    def _tell(self, event: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            event(callback)


class _LeftOutHere:
    """What this process could not train on since the last report."""

    def __init__(self) -> None:
        self.infeasible: list[str] = []
        self.unreadable: list[DataIssue] = []
        self.unchanged = 0
        self.steps = 0

    def add(self, batches: Sequence[Batch], encoded: Sequence[EncodedBatch], changed: bool) -> None:
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
