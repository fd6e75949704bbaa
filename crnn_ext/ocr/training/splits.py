"""The lines of a run: which are trained on, which are left out and why, and which tell how far it is."""

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
"""Of each line of a source after preprocessing, or why it has none."""


class Subset:
    """Some lines of a source, as `evaluate` takes them."""

    def __init__(self, source: LineSource, indices: Sequence[int]) -> None:
        self.names = [source.names[index] for index in indices]
        self.labels = [source.labels[index] for index in indices]
        self._source, self._indices = source, indices

    def image(self, index: int, mode: Mode) -> Image.Image:
        """The image of a line; errors as `LineSource.image`."""
        return self._source.image(self._indices[index], mode)


def validation_split(source: LineSource, columns: Columns, share: float, seed: int) -> list[int]:
    """Lines of a source that can be read, at least one, which are kept from training to tell how far it is.

    Raises:
        DataError: there is only one such line, or none.
    """
    readable = [index for index, number in enumerate(columns) if not isinstance(number, DataIssue)]
    if len(readable) < 2:
        raise DataError(
            f"{source.path}: {pluralize(len(readable), 'usable line')} cannot be parted into some for training "
            "and validation"
        )
    count = max(1, round(share * len(readable)))
    drawn = np.random.default_rng([seed, len(readable)]).permutation(readable)[:count]
    return sorted(drawn.tolist())


class TrainingLines(NamedTuple):
    """The columns of each line of a source after preprocessing, 0 for those that are left out, and why."""

    columns: list[int]
    left_out: list[DataIssue]


def select_training_lines(
    source: LineSource, all_columns: Columns, kept_back: Sequence[int], charset: Charset, network: Network
) -> TrainingLines:
    """Chooses what can be trained on: an image that can be read, enough frames, known characters.

    Args:
        source: all lines.
        all_columns: of each line.
        kept_back: the lines for validation.
        charset, network: of the run.

    Raises:
        DataError: nothing is left.
    """
    left_out = [*source.skipped, *(problem for problem in all_columns if isinstance(problem, DataIssue))]
    columns = [0 if isinstance(number, DataIssue) else number for number in all_columns]
    for index in kept_back:
        columns[index] = 0
    frames = network.output_lengths(columns).tolist()
    for index, (name, label) in enumerate(zip(source.names, source.labels, strict=True)):
        if columns[index] == 0:
            continue
        problem = frames_issue(name, label, frames[index]) or charset_issue(name, label, charset)
        if problem is not None:
            columns[index] = 0
            left_out.append(problem)
    if not any(columns):
        raise DataError(
            f"{source.path}: no line can be trained on"
            + (f"; the first of {len(left_out)} problems is {left_out[0]}" if left_out else "")
        )
    return TrainingLines(columns, left_out)


def fingerprint(lines: LabeledLines, columns: Sequence[int] | None = None) -> str:
    """Tells lines apart from others: their names, labels and, if given, columns, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, label, width in zip(lines.names, lines.labels, columns or [0] * len(lines.names), strict=True):
        digest.update(f"{name}\0{label}\0{width}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
