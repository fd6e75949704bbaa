"""Evaluation of a recognizer on labeled lines."""

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
    """Line images and their texts, for example from `crnn_ext.ocr.data.open_lines`."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the lines in messages, for example the paths of their images."""

    @property
    def labels(self) -> Sequence[str]:
        """The texts of the lines."""

    def image(self, index: int, mode: Mode) -> ImageSource:
        """The image of a line: the result or an argument of `read_image`.

        Raises:
            ImageError: the image cannot be read.
        """


class EvaluatedLine(NamedTuple):
    """A line: its text, the text read, the confidence, and the number of character errors."""

    name: str
    truth: str
    read: str
    confidence: float
    errors: int


class UnreadableLine(NamedTuple):
    """A line whose image cannot be read, and the reason. Metrics exclude it."""

    name: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        lines: the lines that were read, in order.
        unreadable: the lines whose images cannot be read.
        unknown: counts of the characters outside the charset in the truth of the lines read. The recognizer
            cannot read them.
        unit: the unit that counts as a character in `metrics`.
        metrics: the metrics of the lines read.
        calibration: the calibration of their confidences; a line is correct if it has no error.
        seconds: the time for opening, preprocessing and reading the images.
    """

    lines: list[EvaluatedLine]
    unreadable: list[UnreadableLine]
    unknown: Counter[str]
    unit: Unit
    metrics: Metrics
    calibration: Calibration
    seconds: float

    def worst(self, count: int) -> list[EvaluatedLine]:
        """At most `count` lines with errors, the most errors first; ties keep the order of the lines."""
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
    """Reads lines and compares the results with their texts.

    Args:
        recognizer: the recognizer; its `decoding` applies.
        lines: images and texts.
        unit: the unit that counts as a character, as in `ErrorCounts.from_pairs`.
        progress: shows a progress bar on standard error if that is a terminal.
        group: the processes that share the work. All of them must have opened the lines; each reads a shard
            and returns the evaluation of all lines. The default is this process alone.

    Raises:
        TypeError, ValueError: `read_image` does not support the type of an image; and as `Recognizer.read`
            and `ErrorCounts.from_pairs`.
        ImportError: as `ErrorCounts.from_pairs`.
    """
    ErrorCounts.from_pairs([], unit)  # fail early on an unknown unit or a missing package
    group = group or ProcessGroup()
    started = time.perf_counter()
    mode = recognizer.preprocessing.mode
    shard = group.shard(range(len(lines.names)))
    bar = tqdm(
        recognizer.stream(shard, lambda index: lines.image(index, mode)),
        total=len(shard),
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
