"""The training loop: steps, validations, checkpoints and the state to resume from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from crnn_ext._formatting import first_few
from crnn_ext.ocr.checkpoints import Checkpoint, save_checkpoint
from crnn_ext.ocr.data import Batch, BucketBatchSampler, DataError, LineSource
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.evaluation import LabeledLines, evaluate
from crnn_ext.ocr.reading import Recognizer
from crnn_ext.ocr.system.distributed import ProcessGroup

from .callbacks import Callback, SkippedLines, StepMetrics, ValidationResult
from .config import TrainingConfig
from .counters import SkipCounter, StepTimer
from .loader import BatchLoader
from .model import Criterion, EncodedBatch
from .schedule import one_cycle
from .splits import TrainingLines, fingerprint
from .state import Progress, load_state, save_state
from .trainer import Trainer

BEST_CHECKPOINT, LAST_CHECKPOINT, STATE_FILE = "best.safetensors", "last.safetensors", "state.safetensors"

# Consecutive steps without an update. The float16 gradient scaler starts high and skips some 20 steps until
# its scale is low enough.
_MAX_SKIPPED_STEPS = 100


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what may help."""


@dataclass(frozen=True)
class TrainingSetup:
    """The parts of a run.

    Attributes:
        config: all settings, with values for those that may be None.
        folder: folder of the checkpoints and the state.
        checkpoint: the network, on the CPU, with its charset and preprocessing.
        source: the data set.
        lines: the lines of `source` to train on.
        validation: the validation lines.
        group: the processes that train together.
        device: device of this process.
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


Reason = Literal["finished", "no progress", "stopped"]


class TrainingResult(NamedTuple):
    """How a run ended.

    Attributes:
        reason: "finished" after the last step, "no progress" if `patience` ran out, "stopped" on request.
        step: the last step done.
        best_cer: lowest validation CER; None without a validation.
    """

    reason: Reason
    step: int
    best_cer: float | None


class TrainingLoop:
    """Runs the steps of a training; each process has one."""

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
        self.total_steps = config.epochs * self.steps_per_epoch
        self._loader = BatchLoader(
            setup.source,
            setup.checkpoint.preprocessing,
            self._sampler,
            Augmentation(config.augment) if config.augment else None,
            seed=config.seed,
            workers=config.workers or 0,
            pin_memory=setup.device.type == "cuda",
        )
        self._trainer = Trainer(config, setup.checkpoint, group, setup.device, setup.criterion)
        self._step = 0
        self._best_cer: float | None = None
        self._validations_since_best = 0
        self._consecutive_skipped_steps = 0
        self._timer = StepTimer()
        self._skips = SkipCounter()
        self._lines_fingerprint = fingerprint(setup.source, setup.lines.columns)
        self._validation_fingerprint = fingerprint(setup.validation)

    def resume(self) -> None:
        """Restores the state in the folder.

        Raises:
            DataError: the state is missing or damaged, or the lines or the number of batches per step have
                changed.
        """
        path = self._setup.folder / STATE_FILE
        tensors = self._trainer.state_tensors()
        progress, saved = self._setup.group.broadcast_from_rank0(lambda: load_state(path, tensors))
        for found, expected, which in (
            (progress.lines, self._lines_fingerprint, f"the lines of {self._setup.source.path}"),
            (progress.validation, self._validation_fingerprint, "the validation lines"),
        ):
            if found != expected:
                raise DataError(f"{path}: {which} have changed since the run began")
        if progress.batches_a_step != self._batches_per_step:
            raise DataError(
                f"{path}: batches per step of all processes must be {progress.batches_a_step}, "
                f"got {self._batches_per_step} (processes: {self._setup.group.world_size}, "
                f"accumulate: {self._setup.config.accumulate})"
            )
        if progress.step > self.total_steps:
            raise DataError(f"{path}: step must be at most {self.total_steps}, got {progress.step}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])
        self._trainer.loss_scale = progress.loss_scale, progress.steps_at_scale
        self._step, self._best_cer = progress.step, progress.best
        self._validations_since_best = progress.without_better

    def run(self, stop: Callable[[], bool] = lambda: False) -> TrainingResult:
        """Trains until the last step, until `patience` runs out or until `stop` returns True.

        Raises:
            TrainingError: the network has become unusable.
            OSError: a file cannot be written.
        """
        try:
            skipped = self._setup.lines.skipped
            self._notify(lambda callback: callback.on_train_start(self._step, self.total_steps, skipped))
            if self._step == 0:
                self._save()  # a run killed at any later time can be resumed
            result = self._result_if_ended()
            self._timer = StepTimer()
            while result is None:
                result = self._train_epoch(stop)
            return result
        finally:
            self._notify(lambda callback: callback.on_train_end())

    def _train_epoch(self, stop: Callable[[], bool]) -> TrainingResult | None:
        """Runs the remaining steps of an epoch; returns the result if the run has ended."""
        config = self._setup.config
        validate_every = config.validate_every or self.steps_per_epoch
        epoch, position = divmod(self._step, self.steps_per_epoch)
        batches = self._loader.epoch(epoch, position * config.accumulate)
        for _ in range(self.steps_per_epoch - position):
            done = self._train_step([next(batches) for _ in range(config.accumulate)], stop)
            with self._timer.paused():
                validates = done and (self._step % validate_every == 0 or self._step == self.total_steps)
                saves = validates or not done or self._step % config.save_every == 0
                if saves or self._step % self.steps_per_epoch == 0:
                    self._report_skipped_lines()  # before the state: a kill in between must not lose names
                if saves:
                    self._trainer.average_batch_norm_statistics()
                if validates:
                    self._validate()
                if saves:
                    self._save()
            result = self._result_if_ended() if done else self._result("stopped")
            if result is not None:
                return result
        return None

    def _result_if_ended(self) -> TrainingResult | None:
        patience = self._setup.config.patience
        if self._step == self.total_steps:
            return self._result("finished")
        if patience is not None and self._validations_since_best >= patience:
            return self._result("no progress")
        return None

    def _result(self, reason: Reason) -> TrainingResult:
        return TrainingResult(reason, self._step, self._best_cer)

    def _train_step(self, batches: Sequence[Batch], stop: Callable[[], bool]) -> bool:
        """Does a step and returns True, or returns False if any process is to stop."""
        config, group = self._setup.config, self._setup.group
        charset, network = self._setup.checkpoint.charset, self._setup.checkpoint.network
        encoded = [EncodedBatch.from_batch(batch, charset, network) for batch in batches]
        # One all-reduce per step for all values that the processes have to agree on.
        characters, lines, stops = group.all_reduce_sum(
            [
                sum(batch.characters for batch in encoded),
                sum(len(batch.labels) for batch in batches),
                float(stop()),
            ]
        )
        if stops:
            return False
        learning_rate = one_cycle(self._step, self.total_steps, config.lr, config.warmup)
        result = self._trainer.step(encoded, int(characters), learning_rate)
        self._step += 1
        self._timer.count(lines)
        self._skips.add(batches, encoded, result.updated)
        self._check_skipped_steps(result.updated, characters > 0)
        if self._step % config.log_every == 0 or self._step == self.total_steps:
            loss, blank, frames = group.all_reduce_sum([*result.totals.tolist(), result.frames])
            seconds, lines_per_second = self._timer.speed()
            metrics = StepMetrics(
                step=self._step,
                epoch=self._epoch,
                loss=loss / characters if characters else math.nan,
                blank=blank / max(frames, 1),
                labels=characters / max(frames, 1),
                learning_rate=learning_rate,
                gradient_norm=result.gradient_norm,
                lines=int(lines),
                skipped=not result.updated,
                seconds=seconds,
                lines_a_second=lines_per_second,
            )
            self._notify(lambda callback: callback.on_step(metrics))
        return True

    def _check_skipped_steps(self, updated: bool, has_lines: bool) -> None:
        """Raises TrainingError after too many consecutive steps without an update."""
        self._consecutive_skipped_steps = 0 if updated else self._consecutive_skipped_steps + 1
        if self._consecutive_skipped_steps < _MAX_SKIPPED_STEPS:
            return
        if has_lines:
            raise TrainingError(
                f"the last {_MAX_SKIPPED_STEPS} steps had no finite gradient, up to step {self._step}: "
                "try a lower lr or another precision"
            )
        raise TrainingError(
            f"no line of the last {_MAX_SKIPPED_STEPS} steps could be trained on: "
            f"{first_few(self._skips.descriptions())}"
        )

    @property
    def _epoch(self) -> int:
        """The epoch of the last step, from 1."""
        return (self._step - 1) // self.steps_per_epoch + 1

    def _validate(self) -> None:
        """Evaluates the network on the validation lines and saves it if its CER is the lowest so far."""
        setup, network = self._setup, self._trainer.eval_network
        recognizer = Recognizer(network, setup.checkpoint.charset, setup.checkpoint.preprocessing)
        try:
            evaluation = evaluate(recognizer, setup.validation, group=setup.group)
        except ValueError as error:
            raise TrainingError(f"step {self._step}: {error}; try a lower lr") from error
        self._trainer.set_train_mode()
        cer = evaluation.metrics.overall.cer.rate
        if cer is None:
            raise TrainingError("no validation line could be read")
        best = self._best_cer is None or cer.value < self._best_cer
        self._validations_since_best = 0 if best else self._validations_since_best + 1
        if best:
            self._best_cer = cer.value
            self._save_checkpoint(BEST_CHECKPOINT, {"validation_cer": f"{cer.value:.6f}"})
        validation = ValidationResult(self._step, self._epoch, evaluation, best)
        self._notify(lambda callback: callback.on_validation(validation))

    def _save(self) -> None:
        """Writes the last checkpoint and the state."""
        self._save_checkpoint(LAST_CHECKPOINT, {})
        if self._setup.group.rank == 0:
            progress = Progress(
                self._step,
                self._best_cer,
                self._validations_since_best,
                self._batches_per_step,
                self._lines_fingerprint,
                self._validation_fingerprint,
                *self._trainer.loss_scale,
            )
            save_state(self._setup.folder / STATE_FILE, progress, self._trainer.state_tensors())

    def _save_checkpoint(self, name: str, more: dict[str, str]) -> None:
        if self._setup.group.rank == 0:
            metadata = {"training_data": Path(self._setup.config.data).name, "step": str(self._step), **more}
            checkpoint = self._setup.checkpoint._replace(
                network=self._trainer.eval_network, metadata=metadata
            )
            save_checkpoint(self._setup.folder / name, checkpoint)

    def _report_skipped_lines(self) -> None:
        skips, self._skips = self._skips, SkipCounter()
        if skips.steps == 0:
            return
        gathered = self._setup.group.all_gather((skips.infeasible, skips.unreadable))
        report = SkippedLines(
            epoch=self._epoch,
            step=self._step,
            ended=self._step % self.steps_per_epoch == 0,
            always=len(self._setup.lines.skipped),
            infeasible=[name for names, _ in gathered for name in names],
            unreadable=[issue for _, issues in gathered for issue in issues],
            skipped=skips.skipped_steps,
        )
        self._notify(lambda callback: callback.on_lines_skipped(report))

    @property
    def _batches_per_step(self) -> int:
        return self._setup.group.world_size * self._setup.config.accumulate

    def _notify(self, event: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            event(callback)
