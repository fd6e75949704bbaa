"""Preparation of a run: data sets, charset and initial network."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from crnn_ext._formatting import first_few, pluralize
from crnn_ext.ocr.checkpoints import Checkpoint, load_checkpoint
from crnn_ext.ocr.checkpoints.transfer import last_layer, transfer
from crnn_ext.ocr.data import DataError, DataIssue, LineSource, measure_lines, open_lines
from crnn_ext.ocr.data.check import columns_or_issue, describe_character
from crnn_ext.ocr.evaluation import LabeledLines
from crnn_ext.ocr.images import Preprocessing
from crnn_ext.ocr.system.distributed import ProcessGroup
from crnn_ext.text import Charset

from .config import TrainingConfig
from .splits import Columns, fingerprint

# The bias of the blank in a new network. CTC first teaches a network to predict only blanks, and does so with
# gradients so large that the network may need thousands of steps to tell images apart again.
_BLANK_BIAS = 3.0


def open_data_set(setting: str, path: str, group: ProcessGroup) -> LineSource:
    """Opens the data set of a setting in every process.

    Raises:
        DataError: a process cannot open it, it has no line, or the processes see different lines.
    """
    source, digest = None, ""
    error: DataError | None = None
    try:
        source = open_lines(path)
        digest = fingerprint(source)
    except DataError as raised:
        error = DataError(f"{setting}: {raised}")
    for rank, (other_error, other_digest) in enumerate(group.all_gather((error, digest))):
        if other_error is not None:
            raise other_error
        if other_digest != digest:
            raise DataError(f"{path}: process {rank} has other lines than process {group.rank}")
    assert source is not None
    if len(source) == 0:
        raise DataError(f"{source.path}: no lines; the first problem is {source.skipped[0]}")
    return source


def measure_columns(source: LineSource, preprocessing: Preprocessing, group: ProcessGroup) -> Columns:
    """The columns of each line after preprocessing. Rank 0 measures the images, in several processes."""
    sizes = group.broadcast_from_rank0(lambda: measure_lines(source))
    return list(map(partial(columns_or_issue, preprocessing=preprocessing), source.names, sizes))


class InitialNetwork(NamedTuple):
    """The network that a run starts from.

    Attributes:
        config: the settings, with those that the checkpoint of `init` determines.
        checkpoint: the network with its charset and preprocessing.
        messages: for the user.
    """

    config: TrainingConfig
    checkpoint: Checkpoint
    messages: list[str]


def initial_network(config: TrainingConfig, source: LineSource) -> InitialNetwork:
    """Makes a new network or adapts the checkpoint of `init`."""
    charset = None if config.charset is None else Charset.from_file(config.charset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.init is None:
            return _new_network(config, charset or Charset.from_labels(source.labels))
        base = load_checkpoint(config.init)
        config = config.with_checkpoint(base.architecture, base.preprocessing)
        charset = charset or _extended_charset(base.charset, source)
        if charset == base.charset:
            return InitialNetwork(config, base, [f"{config.init}: the charset does not change"])
        adapted = transfer(base, charset)
    message = (
        f"{config.init}: {pluralize(len(adapted.kept), 'character')} kept, {len(adapted.added)} new"
        + (f" ({adapted.added})" if adapted.added else "")
        + f", {len(adapted.dropped)} dropped"
        + (f" ({adapted.dropped})" if adapted.dropped else "")
    )
    checkpoint = Checkpoint(adapted.network, adapted.architecture, charset, base.preprocessing)
    return InitialNetwork(config, checkpoint, [message])


def _new_network(config: TrainingConfig, charset: Charset) -> InitialNetwork:
    architecture = config.architecture(charset.num_classes)
    network = architecture.build()
    with torch.no_grad():
        last_layer(network).bias[charset.blank] += _BLANK_BIAS
    return InitialNetwork(
        config,
        Checkpoint(network, architecture, charset, config.preprocessing()),
        [f"{pluralize(len(charset.characters), 'character')}: {charset.characters}"],
    )


def _extended_charset(charset: Charset, source: LineSource) -> Charset:
    """The charset, with the unknown characters of the labels appended."""
    added = sorted(charset.count_unknown(source.labels))
    return charset if not added else Charset([*charset.characters, *added], charset.blank)


def unusable_validation_lines(validation: LineSource, columns: Columns) -> list[DataIssue]:
    """The validation lines that cannot be read.

    Raises:
        DataError: no line can be read.
    """
    issues = [*validation.skipped, *(issue for issue in columns if isinstance(issue, DataIssue))]
    if len(issues) == len(validation.skipped) + len(validation):
        raise DataError(f"{validation.path}: no usable line; the first problem is {issues[0]}")
    return issues


def skip_messages(source: LineSource, issues: Sequence[DataIssue]) -> list[str]:
    """A message for each kind of issue, with the number of lines and the first of them."""
    messages = []
    for kind in dict.fromkeys(issue.kind for issue in issues):
        lines = [issue.name_and_detail for issue in issues if issue.kind == kind]
        messages.append(f"{source.path}: skipped, {kind}: {len(lines)}: {first_few(lines)}")
    return messages


def charset_messages(charset: Charset, validation: LabeledLines) -> list[str]:
    """A message if validation labels have characters outside the charset."""
    unknown = charset.count_unknown(validation.labels)
    if not unknown:
        return []
    counts = [f"{describe_character(character)}: {count}" for character, count in unknown.most_common()]
    return [
        f"the validation lines have {pluralize(unknown.total(), 'character')} outside the charset, which the "
        f"network cannot read: {first_few(counts)}"
    ]
