"""How well a recogniser reads lines whose text is known."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tqdm import tqdm

from crnn_ext.ocr.images import ImageError, ImageSource, Mode
from crnn_ext.ocr.reading import Reading, Recognizer
from crnn_ext.ocr.system.distributed import ProcessGroup

from .calibration import Calibration, calibration
from .metrics import ErrorCounts, Metrics, Unit


class LabeledLines(Protocol):
    """Images of lines with their texts, such as `crnn_ext.ocr.data.open_lines` gives."""

    @property
    def names(self) -> Sequence[str]:
        """What messages call the lines, such as the paths of their images."""

    @property
    def labels(self) -> Sequence[str]:
        """Their texts."""

    def image(self, index: int, mode: Mode) -> ImageSource:
        """The image of a line, as `read_image` gives or takes it.

        Raises:
            ImageError: there is none that can be read.
        """


class EvaluatedLine(NamedTuple):
    """A line: its text, what was read with which confidence, and the errors in its characters."""

    name: str
    truth: str
    read: str
    confidence: float
    errors: int


class UnreadableLine(NamedTuple):
    """A line whose image cannot be read, and why. It is in no metric."""

    name: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """What a recogniser made of lines.

    Attributes:
        lines: those that were read, in order.
        unreadable: the others.
        unknown: how often the truth of lines read has each character that the charset does not have. They
            cannot be read.
        unit: what counts as a character in `metrics`.
        metrics: of the lines read.
        calibration: of their confidences; a line is right if it has no error.
        seconds: what opening, preprocessing and reading the images took.
    """

    lines: list[EvaluatedLine]
    unreadable: list[UnreadableLine]
    unknown: Counter[str]
    unit: Unit
    metrics: Metrics
    calibration: Calibration
    seconds: float

    def worst(self, count: int) -> list[EvaluatedLine]:
        """The lines with the most errors, at most `count` of those that have any; of equals the first."""
        wrong = [line for line in self.lines if line.errors]
        return sorted(wrong, key=lambda line: -line.errors)[:count]


def evaluate(
    recognizer: Recognizer,
    lines: LabeledLines,
    *,
    unit: Unit = "graphemes",
    progress: bool = False,
    group: ProcessGroup | None = None,
) -> Evaluation:
    """Reads lines and compares what was read with their texts.

    Args:
        recognizer: reads as its `decoding` says.
        lines: images and texts.
        unit: what counts as a character, as for `ErrorCounts.from_pairs`.
        progress: whether to show a progress bar on standard error, if that is a terminal.
        group: the processes that read a share of the lines each, which all of them have opened. Each gets the
            evaluation of all lines. By default this one alone.

    Raises:
        TypeError, ValueError: an image is of a type that `read_image` does not take, and as
            `Recognizer.read` and `ErrorCounts.from_pairs`.
        ImportError: as `ErrorCounts.from_pairs`.
    """
    ErrorCounts.from_pairs(
        [], unit
    )  # Before any image is read: is the unit one that it knows, is its package here?
    group = group or ProcessGroup()
    started = time.perf_counter()
    mode = recognizer.preprocessing.mode
    share = group.shard(range(len(lines.names)))
    bar = tqdm(
        recognizer.stream(share, lambda index: lines.image(index, mode)),
        total=len(share),
        unit="line",
        disable=None if progress and group.rank == 0 else True,
    )
    results: dict[int, Reading | str] = {}
    for index, reading in bar:
        results[index] = str(reading) if isinstance(reading, ImageError) else reading
    for part in group.all_gather(results):
        results.update(part)
    seconds = time.perf_counter() - started

    in_order = sorted(results.items())
    unreadable = [
        UnreadableLine(lines.names[index], reason) for index, reason in in_order if isinstance(reason, str)
    ]
    readings = {index: reading for index, reading in in_order if isinstance(reading, Reading)}
    truths = [lines.labels[index] for index in readings]
    counts = ErrorCounts.from_pairs(
        zip(truths, (reading.text for reading in readings.values()), strict=True), unit
    )
    return Evaluation(
        [
            EvaluatedLine(lines.names[index], truth, reading.text, reading.confidence, errors)
            for (index, reading), truth, errors in zip(
                readings.items(), truths, counts.errors.tolist(), strict=True
            )
        ],
        unreadable,
        recognizer.charset.count_unknown(truths),
        unit,
        counts.metrics(),
        calibration([reading.confidence for reading in readings.values()], counts.errors == 0),
        seconds,
    )
