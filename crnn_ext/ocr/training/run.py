"""`train`: a training run in a folder, new or resumed."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from crnn_ext.ctc import ctc_loss
from crnn_ext.ocr.checkpoints import load_checkpoint
from crnn_ext.ocr.evaluation import ErrorCounts, LabeledLines
from crnn_ext.ocr.system.atomic_write import remove_temporary_files
from crnn_ext.ocr.system.distributed import ProcessGroup, gpu_for_local_rank
from crnn_ext.ocr.system.tf32 import tf32_allowed

from .callbacks import Callback
from .config import TrainingConfig
from .jsonl import JsonlLogger
from .lock import locked
from .loop import BEST_CHECKPOINT, LAST_CHECKPOINT, STATE_FILE, TrainingLoop, TrainingResult, TrainingSetup
from .model import Criterion
from .prepare import (
    InitialNetwork,
    charset_messages,
    initial_network,
    measure_columns,
    open_data_set,
    skip_messages,
    unusable_validation_lines,
)
from .splits import Subset, select_training_lines, validation_split

CONFIG_FILE = "config.json"

# Settings that a resumed run may change. They do not change what it learns, or the state detects the change,
# as for other lines or another number of batches per step.
_CHANGEABLE_SETTINGS = {"data", "val", "accumulate", "patience", "save_every", "log_every", "workers"}


def train(
    config: TrainingConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
    group: ProcessGroup | None = None,
    callbacks: Sequence[Callback] = (),
    criterion: Criterion | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Trains a network on lines of text.

    Under torchrun every process calls this function, and rank 0 writes the files.

    Args:
        config: all settings.
        folder: receives `config.json`, `log.jsonl`, the checkpoints `best.safetensors` and
            `last.safetensors`, and `state.safetensors`, from which the run can resume.
        resume: resume the run in the folder. `config` must equal that of the run,
            `TrainingConfig.load(folder / "config.json")`, except for `data`, `val`, `accumulate`,
            `patience`, `save_every`, `log_every` and `workers`.
        device: device to train on. With "cuda" each process takes the GPU of its local rank; processes share
            GPUs if there are more processes than GPUs.
        group: the processes that train together, which the caller initializes and destroys. By default the
            processes that torchrun started, or this process alone.
        callbacks: receive the events of the run on rank 0.
        criterion: the loss (default: `crnn_ext.ctc.ctc_loss`).
        stop: called before every step; if it returns True in any process, the run saves its state and ends.

    Raises:
        DataError, ImageError, CheckpointError: a file cannot be used; the message names it.
        TrainingError: the network became unusable.
        ValueError: the folder already has a run and `resume` is False, or a setting differs from the run.
        OSError: a file cannot be written.
        ImportError: a package that training or validation needs is not installed.
    """
    if not config.data:
        raise ValueError("data must name a training data set, got an empty string")
    ErrorCounts.from_pairs([])  # fails now if a package is missing, not at the first validation
    with ExitStack() as stack:
        if group is None:
            group = ProcessGroup.initialize()
            stack.callback(group.destroy)
        return _train(config, Path(folder), resume, device, group, callbacks, criterion, stop)


def _train(
    config: TrainingConfig,
    folder: Path,
    resume: bool,
    device: str | torch.device,
    group: ProcessGroup,
    callbacks: Sequence[Callback],
    criterion: Criterion | None,
    stop: Callable[[], bool],
) -> TrainingResult:
    own_device = torch.device(device)
    if own_device.type == "cuda":
        own_device = gpu_for_local_rank(group.local_rank) if own_device.index is None else own_device
        torch.cuda.set_device(own_device)  # NCCL communicates through the current device
    if not resume:
        group.broadcast_from_rank0(lambda: _check_new(folder))
    config = _with_defaults(config, own_device)
    source = open_data_set("data", config.data, group)
    validation_source = None if config.val is None else open_data_set("val", config.val, group)
    if resume:
        initial = group.broadcast_from_rank0(lambda: _load_run(config, folder))
    else:
        initial = initial_network(config, source)
    charset, preprocessing = initial.checkpoint.charset, initial.checkpoint.preprocessing
    columns = measure_columns(source, preprocessing, group)
    messages: list[str] = []
    if validation_source is None:
        held_out = validation_split(source, columns, config.val_fraction, config.seed)
        validation: LabeledLines = Subset(source, held_out)
    else:
        held_out, validation = [], validation_source
        validation_columns = measure_columns(validation_source, preprocessing, group)
        issues = unusable_validation_lines(validation_source, validation_columns)
        messages = skip_messages(validation_source, issues)
    lines = select_training_lines(source, columns, held_out, charset, initial.checkpoint.network)
    own_callbacks = (JsonlLogger(folder), *callbacks) if group.rank == 0 else ()
    for message in (
        *initial.messages,
        *skip_messages(source, lines.skipped),
        *messages,
        *charset_messages(charset, validation),
    ):
        for callback in own_callbacks:
            callback.on_message(message)
    setup = TrainingSetup(
        config=initial.config,
        folder=folder,
        checkpoint=initial.checkpoint,
        source=source,
        lines=lines,
        validation=validation,
        group=group,
        device=own_device,
        criterion=criterion or _criterion(charset.blank),
    )
    with ExitStack() as stack:
        group.broadcast_from_rank0(lambda: _enter(folder, resume, stack))
        stack.enter_context(tf32_allowed(initial.config.precision == "tf32"))
        loop = TrainingLoop(setup, own_callbacks)
        if resume:
            loop.resume()
        group.broadcast_from_rank0(lambda: initial.config.save(folder / CONFIG_FILE))
        return loop.run(stop)


def _check_new(folder: Path) -> None:
    """Raises ValueError if the folder has a run; a run killed before its first saved state does not count."""
    if any((folder / name).exists() for name in (STATE_FILE, BEST_CHECKPOINT)):
        raise ValueError(f"{folder}: already contains a run; resume it with --resume or use another folder")


def _enter(folder: Path, resume: bool, stack: ExitStack) -> None:
    """Creates and locks the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(locked(folder))
    if not resume:
        _check_new(folder)  # again: another process may have trained there in the meantime
    remove_temporary_files(folder)


def _with_defaults(config: TrainingConfig, device: torch.device) -> TrainingConfig:
    """The settings, with precision and workers chosen for this machine if they are None."""
    precision, workers = config.precision, config.workers
    if precision is None:
        precision = "bfloat16" if device.type == "cuda" else "float32"
    if workers is None:
        cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(8, max(1, cores - 1)) if device.type == "cuda" else 1
    return replace(config, precision=precision, workers=workers)


def _load_run(config: TrainingConfig, folder: Path) -> InitialNetwork:
    """The last network of the run in the folder. The files that the run started from are not needed.

    Raises:
        ValueError: a setting differs from the run.
    """
    saved = TrainingConfig.load(folder / CONFIG_FILE)
    for setting in fields(config):
        old, new = getattr(saved, setting.name), getattr(config, setting.name)
        if old != new and setting.name not in _CHANGEABLE_SETTINGS:
            raise ValueError(
                f"{folder / CONFIG_FILE}: {setting.name} of a resumed run must be {old!r}, got {new!r}; "
                "to change it, start a new run from this network with --init"
            )
    return InitialNetwork(config, load_checkpoint(folder / LAST_CHECKPOINT), [])


def _criterion(blank: int) -> Criterion:
    def losses(logits: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        return ctc_loss(logits, targets, frames, lengths, blank, reduction="none", zero_infinity=True)

    return losses
