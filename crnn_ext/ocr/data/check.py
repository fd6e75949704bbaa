"""What stands in the way of training on a data set, found without running a network."""

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

from .measure import Measured, measure_lines
from .source import LineSource, Problem


class Spread(NamedTuple):
    """The smallest of some numbers, the median, the 95th percentile and the largest."""

    least: float
    median: float
    percentile_95: float
    most: float


class UnknownCharacter(NamedTuple):
    """A character outside the charset, how often it occurs, and the name of the first line that has it."""

    character: str
    occurrences: int
    first: str


@dataclass(frozen=True)
class Report:
    """What `check_lines` finds.

    Attributes:
        lines: how many there are, those with problems among them.
        problems: of each kind, the items that have it. A line may have several.
        unknown: characters outside the charset, the most frequent first; empty without a charset.
        recomposed: the names of lines whose labels are not in NFC. Readers bring them there, so it is no
            problem.
        characters: how often each code point occurs.
        clusters: how often each grapheme cluster occurs: what people see as one character.
        spreads: of widths, heights, columns and frames, of images that can be read; of label lengths.
    """

    lines: int
    problems: dict[str, list[Problem]]
    unknown: list[UnknownCharacter]
    recomposed: list[str]
    characters: Counter[str]
    clusters: Counter[str]
    spreads: dict[str, Spread]


def frames_needed(label: str) -> int:
    """The fewest frames from which a label can be read: one a character, and a blank in each doubled one."""
    return len(label) + doubled(label)


def doubled(label: str) -> int:
    """How many characters of a label equal the one before."""
    return sum(map(str.__eq__, label, label[1:]))


def check_lines(
    source: LineSource,
    preprocessing: Preprocessing,
    output_lengths: Callable[[Sequence[int]], Tensor],
    charset: Charset | None = None,
    *,
    decode: bool = False,
    workers: int | None = None,
) -> Report:
    """Finds lines that cannot be trained on, and tells what the data is like.

    Args:
        source: the lines.
        preprocessing: what is done to their images.
        output_lengths: of the network: from columns to frames.
        charset: of the network, if it is known.
        decode: decodes each image, which finds damaged ones and those that are there twice. Otherwise only
            headers are read.
        workers: processes that read images; 1 for this one alone. By default as many as cores.

    Raises:
        DataError: a process was killed.
    """
    measured = measure_lines(source, decode=decode, workers=workers)
    sizes = {index: size for index, size in enumerate(measured) if isinstance(size, Measured)}
    widths, heights = (np.array([size[axis] for size in sizes.values()], np.int64) for axis in (0, 1))
    fits = list(map(partial(columns_of, preprocessing=preprocessing), source.names, measured))
    columns = {index: number for index, number in enumerate(fits) if not isinstance(number, Problem)}
    frames = output_lengths(list(columns.values())).numpy()
    needed = np.array([frames_needed(source.labels[index]) for index in columns], np.int64)
    problems: dict[str, list[Problem]] = {}
    for problem in chain(
        source.skipped,
        (problem for problem in fits if isinstance(problem, Problem)),
        _found(map(too_few_frames, *_lines(source, columns), frames.tolist())),
        _duplicate_images(source, sizes),
        _outside_charset(source, charset),
    ):
        problems.setdefault(problem.kind, []).append(problem)
    return Report(
        lines=len(source),
        problems=problems,
        unknown=_unknown_characters(source, charset),
        recomposed=[source.names[index] for index in source.recomposed],
        characters=Counter(chain.from_iterable(source.labels)),
        clusters=Counter(chain.from_iterable(map(graphemes, source.labels))),
        spreads={
            name: spread(values)
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


def spread(values: npt.NDArray[np.int64]) -> Spread:
    """Of one or more numbers."""
    return Spread(*np.percentile(values, [0, 50, 95, 100], method="nearest").tolist())


def named(character: str) -> str:
    """A character with its code point and its Unicode name, if it has one."""
    name = unicodedata.name(character, "")
    return f"{character!r} U+{ord(character):04X} {name}".rstrip()


def columns_of(name: str, size: Measured | Problem, preprocessing: Preprocessing) -> int | Problem:
    """How many columns a line has after preprocessing, or why it has none: no readable image, or too wide."""
    if isinstance(size, Problem):
        return size
    try:
        return preprocessing.columns(size.width, size.height)
    except ImageError as error:
        return Problem(name, "too wide", str(error))


def too_few_frames(name: str, label: str, frames: int) -> Problem | None:
    """What is wrong with a line of which the network makes too few frames for its label, if it does."""
    if frames >= frames_needed(label):
        return None
    return Problem(
        name,
        "too few frames",
        f"{frames}, and the label needs {frames_needed(label)}: {len(label)} characters and "
        f"{doubled(label)} blanks between equal ones",
    )


def outside_charset(name: str, label: str, charset: Charset) -> Problem | None:
    """What is wrong with a line whose label has characters that the charset does not have, if it has."""
    unknown = sorted(set(label).difference(charset.characters))
    if not unknown:
        return None
    return Problem(name, "characters outside the charset", ", ".join(map(named, unknown)))


def _duplicate_images(source: LineSource, sizes: Mapping[int, Measured]) -> Iterator[Problem]:
    first: dict[bytes, int] = {}
    for index, (_, _, digest) in sizes.items():
        if digest is not None and first.setdefault(digest, index) != index:
            earlier = first[digest]
            label = "the same" if source.labels[earlier] == source.labels[index] else "another"
            yield Problem(
                source.names[index],
                "duplicate image",
                f"the same file as {source.names[earlier]}, with {label} label",
            )


def _lines(source: LineSource, indices: Iterable[int]) -> tuple[list[str], list[str]]:
    """Names and labels of these lines."""
    chosen = list(indices)
    return [source.names[index] for index in chosen], [source.labels[index] for index in chosen]


def _outside_charset(source: LineSource, charset: Charset | None) -> Iterator[Problem]:
    if charset is None:
        return iter(())
    return _found(map(partial(outside_charset, charset=charset), source.names, source.labels))


def _found(problems: Iterable[Problem | None]) -> Iterator[Problem]:
    return (problem for problem in problems if problem is not None)


def _unknown_characters(source: LineSource, charset: Charset | None) -> list[UnknownCharacter]:
    if charset is None:
        return []
    counts = charset.count_unknown(source.labels)
    first: dict[str, str] = {}
    for name, label in zip(source.names, source.labels, strict=True):
        for character in counts.keys() & set(label):
            first.setdefault(character, name)
    return [UnknownCharacter(character, count, first[character]) for character, count in counts.most_common()]
