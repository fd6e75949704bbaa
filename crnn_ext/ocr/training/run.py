"""From settings to a run: opens the data, chooses the characters and makes the network."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext._formatting import first_few, pluralize
from crnn_ext.ctc import ctc_loss
from crnn_ext.ocr.checkpoints import Checkpoint, load_checkpoint
from crnn_ext.ocr.checkpoints.transfer import last_layer, transfer
from crnn_ext.ocr.data import DataError, DataIssue, LineSource, measure_lines, open_lines
from crnn_ext.ocr.data.check import columns_or_issue, describe_character
from crnn_ext.ocr.evaluation import ErrorCounts, LabeledLines
from crnn_ext.ocr.images import Preprocessing
from crnn_ext.ocr.system.atomic_write import remove_temporary_files
from crnn_ext.ocr.system.distributed import ProcessGroup, gpu_for_local_rank
from crnn_ext.ocr.system.tf32 import tf32_allowed
from crnn_ext.text import Charset

from .callbacks import Callback
from .config import TrainingConfig
from .jsonl import JsonlLogger
from .lock import locked
from .loop import BEST_CHECKPOINT, LAST_CHECKPOINT, STATE_FILE, TrainingLoop, TrainingResult, TrainingSetup
from .model import Criterion
from .splits import Columns, Subset, fingerprint, select_training_lines, validation_split

CONFIG_FILE = "config.json"

# Settings that a run may go on with in another form. They do not change what it learns, or its state tells if
# they do, as with other lines or another number of batches a step.
_MAY_CHANGE = {"data", "val", "accumulate", "patience", "save_every", "log_every", "workers"}

# A new network says blank in most frames from the start. CTC would first teach it that, so hard that it may
# take thousands of steps until it tells one image from another.
_BLANK_BIAS = 3.0


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

    Under torchrun every process calls this; the first one writes.

    Args:
        config: all settings.
        folder: takes `config.json`; `log.jsonl`; `best.safetensors` and `last.safetensors`, checkpoints; and
            `state.safetensors`, with which the run can go on.
        resume: goes on with the run in the folder, whose settings `config` must have, as
            `TrainingConfig.load(folder / "config.json")` does. Only `data`, `val`, `accumulate`, `patience`,
            `save_every`, `log_every` and `workers` may be others.
        device: to train on; of "cuda" each process takes the GPU of its rank, and shares it if there are more
            processes than GPUs.
        group: the processes that train together, which the caller has met and will part from; if not given
            those that torchrun has started, or this one alone.
        callbacks: are told what happens, in the first process.
        criterion: the loss; `crnn_ext.ctc.ctc_loss` if not given.
        stop: asked before every step whether the run shall save its state and end.

    Raises:
        DataError, ImageError, CheckpointError: files cannot be used; the message names them.
        TrainingError: the network became unusable.
        ValueError: the folder has a run, and `resume` is not set, or a setting is not that of the run.
        OSError: a file cannot be written.
        ImportError: a package that training or validation needs is not installed.
    """
    if not config.data:
        raise ValueError("data must name a data set to train on, and it is empty")
    ErrorCounts.from_pairs([])  # A missing package shows now, and not at the first validation.
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
    here = torch.device(device)
    if here.type == "cuda":
        here = gpu_for_local_rank(group.local_rank) if here.index is None else here
        torch.cuda.set_device(here)  # which is what the processes exchange through
    if not resume:
        group.broadcast_from_rank0(lambda: _check_new(folder))
    config = _decided(config, here, group)
    source = _opened_by_all("data", config.data, group)
    validation = None if config.val is None else _opened_by_all("val", config.val, group)
    start = (
        group.broadcast_from_rank0(lambda: _resumed(config, folder)) if resume else _network(config, source)
    )
    columns = _columns(source, start.checkpoint.preprocessing, group)
    if validation is None:
        kept_back = validation_split(source, columns, config.val_fraction, config.seed)
        part: LabeledLines = Subset(source, kept_back)
        notes = []
    else:
        kept_back, part = [], validation
        notes = _unusable(validation, _columns(validation, start.checkpoint.preprocessing, group))
    chosen = select_training_lines(
        source, columns, kept_back, start.checkpoint.charset, start.checkpoint.network
    )
    told = (JsonlLogger(folder), *callbacks) if group.rank == 0 else ()
    for note in (
        *start.notes,
        *_left_out(source, chosen.left_out),
        *notes,
        *_unknown(start.checkpoint.charset, part),
    ):
        for callback in told:
            callback.on_message(note)
    setup = TrainingSetup(
        config=start.config,
        folder=folder,
        checkpoint=start.checkpoint,
        source=source,
        lines=chosen,
        validation=part,
        group=group,
        device=here,
        criterion=criterion or _criterion(start.checkpoint.charset.blank),
    )
    with ExitStack() as stack:
        group.broadcast_from_rank0(lambda: _enter(folder, resume, stack))
        stack.enter_context(tf32_allowed(start.config.precision == "tf32"))
        run = TrainingLoop(setup, told)
        if resume:
            run.resume()
        group.broadcast_from_rank0(lambda: start.config.save(folder / CONFIG_FILE))
        return run.train(stop)


def _check_new(folder: Path) -> None:
    """Raises ValueError if the folder has a run; one that was killed before its first state is none."""
    if any((folder / name).exists() for name in (STATE_FILE, BEST_CHECKPOINT)):
        raise ValueError(
            f"{folder}: a run is there already; go on with it by --resume, or name another folder"
        )


def _enter(folder: Path, resume: bool, stack: ExitStack) -> None:
    """Makes the folder this run's own."""
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(locked(folder))
    if not resume:
        _check_new(folder)  # once more, as another process may have trained there meanwhile
    remove_temporary_files(folder)


def _decided(config: TrainingConfig, device: torch.device, group: ProcessGroup) -> TrainingConfig:
    """The settings, with those that were left open as they fit this machine."""
    precision, workers = config.precision, config.workers
    if precision is None:
        precision = "bfloat16" if device.type == "cuda" else "float32"
    if workers is None:
        cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(8, max(1, cores - 1)) if device.type == "cuda" else 1
    return replace(config, precision=precision, workers=workers)


def _opened_by_all(setting: str, path: str, group: ProcessGroup) -> LineSource:
    """The data set of a setting, which every process has opened.

    Raises:
        DataError: one of them cannot, it has no line, or not all have the same lines.
    """
    source, found = None, ""
    error: DataError | None = None
    try:
        source = open_lines(path)
        found = fingerprint(source)
    except DataError as raised:
        error = DataError(f"{setting}: {raised}")
    for rank, (raised_there, found_there) in enumerate(group.all_gather((error, found))):
        if raised_there is not None:
            raise raised_there
        if found_there != found:
            raise DataError(
                f"{path}: all processes must have the same lines, and those of process {rank} are not those "
                f"of process {group.rank}"
            )
    assert source is not None
    if len(source) == 0:
        raise DataError(f"{source.path}: it has no line; the first problem is {source.skipped[0]}")
    return source


def _columns(source: LineSource, preprocessing: Preprocessing, group: ProcessGroup) -> Columns:
    # One process has a look at all images, in several of its own.
    measured = group.broadcast_from_rank0(lambda: measure_lines(source))
    return list(map(partial(columns_or_issue, preprocessing=preprocessing), source.names, measured))


def _unusable(validation: LineSource, columns: Columns) -> list[str]:
    """Notes of the lines for validation that cannot be read.

    Raises:
        DataError: these are all.
    """
    problems = [*validation.skipped, *(problem for problem in columns if isinstance(problem, DataIssue))]
    if len(problems) == len(validation.skipped) + len(validation):
        raise DataError(f"{validation.path}: it has no usable line; the first problem is {problems[0]}")
    return _left_out(validation, problems)


def _resumed(config: TrainingConfig, folder: Path) -> "_Start":
    """The run in the folder. The files that it began with may have changed or gone.

    Raises:
        ValueError: a setting is not that of the run.
    """
    saved = TrainingConfig.load(folder / CONFIG_FILE)
    for setting in fields(config):
        before, now = getattr(saved, setting.name), getattr(config, setting.name)
        if before != now and setting.name not in _MAY_CHANGE:
            raise ValueError(
                f"{folder / CONFIG_FILE}: {setting.name} of the run is {before!r} and cannot become {now!r} on "
                "the way; a new run can begin from its network, by --init"
            )
    return _Start(config, load_checkpoint(folder / LAST_CHECKPOINT), [])


class _Start(NamedTuple):
    config: TrainingConfig
    checkpoint: Checkpoint
    notes: list[str]


def _network(config: TrainingConfig, source: LineSource) -> _Start:
    """The network that the run begins with, new or with what another has learnt."""
    charset = None if config.charset is None else Charset.from_file(config.charset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.init is None:
            return _new(config, charset or Charset.from_labels(source.labels))
        begun = load_checkpoint(config.init)
        config = config.with_checkpoint(begun.architecture, begun.preprocessing)
        charset = charset or _charset_for(begun.charset, source)
        if charset == begun.charset:
            return _Start(config, begun, [f"{config.init}: its characters stay"])
        moved = transfer(begun, charset)
    notes = [
        f"{config.init}: {pluralize(len(moved.kept), 'character')} kept, {len(moved.added)} new"
        + (f" ({moved.added})" if moved.added else "")
        + f", {len(moved.dropped)} dropped"
        + (f" ({moved.dropped})" if moved.dropped else "")
    ]
    return _Start(config, Checkpoint(moved.network, moved.architecture, charset, begun.preprocessing), notes)


def _new(config: TrainingConfig, charset: Charset) -> _Start:
    architecture = config.architecture(charset.num_classes)
    network = architecture.build()
    with torch.no_grad():
        last_layer(network).bias[charset.blank] += _BLANK_BIAS
    return _Start(
        config,
        Checkpoint(network, architecture, charset, config.preprocessing()),
        [f"{pluralize(len(charset.characters), 'character')}: {charset.characters}"],
    )


def _charset_for(known: Charset, source: LineSource) -> Charset:
    """The characters of a network, and after them those that the labels have beside them."""
    added = sorted(known.count_unknown(source.labels))
    return known if not added else Charset([*known.characters, *added], known.blank)


def _criterion(blank: int) -> Criterion:
    def losses(logits: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        return ctc_loss(logits, targets, frames, lengths, blank, reduction="none", zero_infinity=True)

    return losses


def _left_out(source: LineSource, problems: Sequence[DataIssue]) -> list[str]:
    """A note for each kind of problem, with how many lines have it and the first of them."""
    notes = []
    for kind in dict.fromkeys(problem.kind for problem in problems):
        of_kind = [problem for problem in problems if problem.kind == kind]
        names = [problem.name_and_detail for problem in of_kind]
        notes.append(f"{source.path}: left out, {kind}: {len(names)}: {first_few(names)}")
    return notes


def _unknown(charset: Charset, validation: LabeledLines) -> list[str]:
    unknown = charset.count_unknown(validation.labels)
    if not unknown:
        return []
    counts = [f"{describe_character(character)}: {count}" for character, count in unknown.most_common()]
    return [
        f"the lines for validation have {pluralize(unknown.total(), 'character')} outside the charset, which "
        f"cannot be read: {first_few(counts)}"
    ]
