"""Checks of data sets before training, without running a network."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crnn_ext.ocr.images import ImageError, Preprocessing
from crnn_ext.text import Charset
from crnn_ext.text.graphemes import graphemes

from .measure import ImageSize, measure_lines
from .source import DataIssue, LineSource


class Quantiles(NamedTuple):
    """The minimum, median, 95th percentile and maximum of some numbers."""

    minimum: float
    median: float
    percentile_95: float
    maximum: float


class UnknownCharacter(NamedTuple):
    """A character outside the charset, its number of occurrences, and the name of the first line with it."""

    character: str
    occurrences: int
    first: str


@dataclass(frozen=True)
class DataReport:
    """The result of `check_lines`.

    Attributes:
        lines: the number of lines, including those with issues.
        issues: the issues by kind. A line may have several.
        unknown: characters outside the charset, the most frequent first; empty without a charset.
        normalized_to_nfc: the names of lines whose labels are not in NFC. This is not an issue: readers
            normalize them.
        characters: the count of each code point.
        clusters: the count of each grapheme cluster (user-perceived character).
        quantiles: quantiles of the widths, heights, columns and frames of readable images, and of the label
            lengths, by name.
    """

    lines: int
    issues: dict[str, list[DataIssue]]
    unknown: list[UnknownCharacter]
    normalized_to_nfc: list[str]
    characters: Counter[str]
    clusters: Counter[str]
    quantiles: dict[str, Quantiles]


def frames_needed(label: str) -> int:
    """The minimum number of frames for a label: one for each character and for the blank between repeats."""
    return len(label) + count_repeats(label)


def count_repeats(label: str) -> int:
    """The number of characters of a label that equal the preceding character."""
    return sum(map(str.__eq__, label, label[1:]))


def check_lines(
    source: LineSource,
    preprocessing: Preprocessing,
    output_lengths: Callable[[Sequence[int]], Tensor],
    charset: Charset | None = None,
    *,
    decode: bool = False,
    workers: int | None = None,
) -> DataReport:
    """Finds lines that cannot be used for training, and computes statistics of the data set.

    Args:
        source: the lines.
        preprocessing: the preprocessing of the images.
        output_lengths: the method of the network that maps columns to frames.
        charset: the charset of the network, if known.
        decode: decodes each image, which finds damaged and duplicate images. Otherwise only headers are read.
        workers: number of processes that read images; 1 uses this process alone. The default is the number of
            cores.

    Raises:
        DataError: a worker process was killed.
    """
    measured = measure_lines(source, decode=decode, workers=workers)
    sizes = {index: size for index, size in enumerate(measured) if isinstance(size, ImageSize)}
    widths, heights = (np.array([size[axis] for size in sizes.values()], np.int64) for axis in (0, 1))
    columns_or_issues = list(
        map(partial(columns_or_issue, preprocessing=preprocessing), source.names, measured)
    )
    columns = {
        index: number for index, number in enumerate(columns_or_issues) if not isinstance(number, DataIssue)
    }
    frames = output_lengths(list(columns.values())).numpy()
    needed = np.array([frames_needed(source.labels[index]) for index in columns], np.int64)
    issues: dict[str, list[DataIssue]] = {}
    for issue in chain(
        source.skipped,
        (issue for issue in columns_or_issues if isinstance(issue, DataIssue)),
        _not_none(map(frames_issue, *_lines(source, columns), frames.tolist())),
        _duplicate_images(source, sizes),
        _charset_issues(source, charset),
    ):
        issues.setdefault(issue.kind, []).append(issue)
    return DataReport(
        lines=len(source),
        issues=issues,
        unknown=_unknown_characters(source, charset),
        normalized_to_nfc=[source.names[index] for index in source.normalized_to_nfc],
        characters=Counter(chain.from_iterable(source.labels)),
        clusters=Counter(chain.from_iterable(map(graphemes, source.labels))),
        quantiles={
            name: quantiles(values)
            for name, values in (
                ("image width", widths),
                ("image height", heights),
                ("columns", np.array(list(columns.values()), np.int64)),
                ("frames", frames),
                ("frames needed", needed),
                ("frames to spare", frames - needed),
                ("label length", np.array(list(map(len, source.labels)), np.int64)),
            )
            if len(values)
        },
    )


def quantiles(values: npt.NDArray[np.int64]) -> Quantiles:
    """Computes the quantiles of one or more numbers."""
    return Quantiles(*np.percentile(values, [0, 50, 95, 100], method="nearest").tolist())


def describe_character(character: str) -> str:
    """The character with its code point and, if it has one, its Unicode name."""
    name = unicodedata.name(character, "")
    return f"{character!r} U+{ord(character):04X} {name}".rstrip()


def columns_or_issue(name: str, size: ImageSize | DataIssue, preprocessing: Preprocessing) -> int | DataIssue:
    """The columns of a line after preprocessing, or the issue if the image is unreadable or too wide."""
    if isinstance(size, DataIssue):
        return size
    try:
        return preprocessing.columns(size.width, size.height)
    except ImageError as error:
        return DataIssue(name, "too wide", str(error))


def frames_issue(name: str, label: str, frames: int) -> DataIssue | None:
    """The issue of a line whose image has too few frames for its label; None if it has enough."""
    if frames >= frames_needed(label):
        return None
    return DataIssue(
        name,
        "too few frames",
        f"{frames}, the label needs {frames_needed(label)}: {len(label)} characters and "
        f"{count_repeats(label)} blanks between repeated characters",
    )


def charset_issue(name: str, label: str, charset: Charset) -> DataIssue | None:
    """The issue of a line whose label has characters outside the charset; None if it has none."""
    unknown = sorted(set(label).difference(charset.characters))
    if not unknown:
        return None
    return DataIssue(name, "characters outside the charset", ", ".join(map(describe_character, unknown)))


def _duplicate_images(source: LineSource, sizes: Mapping[int, ImageSize]) -> Iterator[DataIssue]:
    first: dict[bytes, int] = {}
    for index, (_, _, digest) in sizes.items():
        if digest is not None and first.setdefault(digest, index) != index:
            earlier = first[digest]
            label = "the same" if source.labels[earlier] == source.labels[index] else "a different"
            yield DataIssue(
                source.names[index],
                "duplicate image",
                f"the same file as {source.names[earlier]}, with {label} label",
            )


def _lines(source: LineSource, indices: Iterable[int]) -> tuple[list[str], list[str]]:
    """The names and labels of the lines with these indices."""
    chosen = list(indices)
    return [source.names[index] for index in chosen], [source.labels[index] for index in chosen]


def _charset_issues(source: LineSource, charset: Charset | None) -> Iterator[DataIssue]:
    if charset is None:
        return iter(())
    return _not_none(map(partial(charset_issue, charset=charset), source.names, source.labels))


def _not_none(issues: Iterable[DataIssue | None]) -> Iterator[DataIssue]:
    return (issue for issue in issues if issue is not None)


def _unknown_characters(source: LineSource, charset: Charset | None) -> list[UnknownCharacter]:
    if charset is None:
        return []
    counts = charset.count_unknown(source.labels)
    first: dict[str, str] = {}
    for name, label in zip(source.names, source.labels, strict=True):
        for character in counts.keys() & set(label):
            first.setdefault(character, name)
    return [UnknownCharacter(character, count, first[character]) for character, count in counts.most_common()]
