"""The validation split, and the lines that can be trained on."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from crnn_ext._formatting import pluralize
from crnn_ext.ocr.checkpoints import Network
from crnn_ext.ocr.data import DataError, DataIssue, LineSource
from crnn_ext.ocr.data.check import charset_issue, frames_issue
from crnn_ext.ocr.evaluation import LabeledLines
from crnn_ext.ocr.images import Mode
from crnn_ext.text import Charset

Columns = Sequence[int | DataIssue]
"""For each line of a source the columns of its image after preprocessing, or why it has none."""


class Subset:
    """Some lines of a source, in the form that `evaluate` takes."""

    def __init__(self, source: LineSource, indices: Sequence[int]) -> None:
        self.names = [source.names[index] for index in indices]
        self.labels = [source.labels[index] for index in indices]
        self._source, self._indices = source, indices

    def image(self, index: int, mode: Mode) -> Image.Image:
        """The image of a line; raises as `LineSource.image`."""
        return self._source.image(self._indices[index], mode)


def validation_split(source: LineSource, columns: Columns, fraction: float, seed: int) -> list[int]:
    """Draws the indices of the lines to hold out for validation, at least one, all readable.

    Raises:
        DataError: fewer than two lines are readable.
    """
    readable = [index for index, number in enumerate(columns) if not isinstance(number, DataIssue)]
    if len(readable) < 2:
        raise DataError(
            f"{source.path}: a validation split needs at least 2 usable lines, got {len(readable)}"
        )
    count = max(1, round(fraction * len(readable)))
    drawn = np.random.default_rng([seed, len(readable)]).permutation(readable)[:count]
    return sorted(drawn.tolist())


class TrainingLines(NamedTuple):
    """The lines of a source to train on.

    Attributes:
        columns: columns of each line after preprocessing; 0 for lines that are not trained on.
        skipped: why lines are skipped.
    """

    columns: list[int]
    skipped: list[DataIssue]


def select_training_lines(
    source: LineSource, columns: Columns, held_out: Sequence[int], charset: Charset, network: Network
) -> TrainingLines:
    """Selects the lines with a readable image, enough frames and only characters of the charset.

    Args:
        source: the data set.
        columns: columns of each of its lines.
        held_out: indices of the validation lines.
        charset, network: charset and network of the run.

    Raises:
        DataError: no line is left.
    """
    skipped = [*source.skipped, *(issue for issue in columns if isinstance(issue, DataIssue))]
    selected = [0 if isinstance(number, DataIssue) else number for number in columns]
    for index in held_out:
        selected[index] = 0
    frames = network.output_lengths(selected).tolist()
    for index, (name, label) in enumerate(zip(source.names, source.labels, strict=True)):
        if selected[index] == 0:
            continue
        issue = frames_issue(name, label, frames[index]) or charset_issue(name, label, charset)
        if issue is not None:
            selected[index] = 0
            skipped.append(issue)
    if not any(selected):
        raise DataError(
            f"{source.path}: no line can be trained on"
            + (f"; {pluralize(len(skipped), 'problem')}, the first: {skipped[0]}" if skipped else "")
        )
    return TrainingLines(selected, skipped)


def fingerprint(lines: LabeledLines, columns: Sequence[int] | None = None) -> str:
    """A hash of the names, labels and, if given, columns of the lines, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, label, width in zip(lines.names, lines.labels, columns or [0] * len(lines.names), strict=True):
        digest.update(f"{name}\0{label}\0{width}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
