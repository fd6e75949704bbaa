"""How well a recogniser reads lines whose text is known."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tqdm import tqdm

from .calibration import Calibration, calibration
from .images import ImageError, ImageSource, Mode
from .metrics import ErrorCounts, Metrics, Unit
from .recognizer import Recognizer

# Images that are held in memory at a time: enough to find some of equal width, which are read together.
_IMAGES_AT_A_TIME = 256


class Lines(Protocol):
    """Images of lines with their texts, such as `crnn_ext.ocr.data.open_lines` gives.

    Attributes:
        names: what messages call the lines, such as the paths of their images.
        labels: their texts.
    """

    names: Sequence[str]
    labels: Sequence[str]

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


class Unreadable(NamedTuple):
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
    unreadable: list[Unreadable]
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
    recognizer: Recognizer, lines: Lines, *, unit: Unit = "graphemes", progress: bool = False
) -> Evaluation:
    """Reads lines and compares what was read with their texts.

    Args:
        recognizer: reads as its `decoding` says.
        lines: images and texts.
        unit: what counts as a character, as for `ErrorCounts.of`.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Raises:
        TypeError, ValueError: an image is of a type that `read_image` does not take, and as
            `Recognizer.read` and `ErrorCounts.of`.
    """
    ErrorCounts.of([], unit)  # A unit that breaks its rule shows before any image is read.
    started = time.perf_counter()
    mode = recognizer.preprocessing.mode
    indices: list[int] = []
    readings = []
    unreadable = []
    with tqdm(total=len(lines.names), unit="line", disable=None if progress else True) as bar:
        for first in range(0, len(lines.names), _IMAGES_AT_A_TIME):
            prepared = []
            batch = range(first, min(first + _IMAGES_AT_A_TIME, len(lines.names)))
            for index in batch:
                try:
                    prepared.append(recognizer.prepare(lines.image(index, mode)))
                    indices.append(index)
                except ImageError as error:
                    unreadable.append(Unreadable(lines.names[index], str(error)))
            readings.extend(recognizer.read(prepared))
            bar.update(len(batch))
    seconds = time.perf_counter() - started

    truths = [lines.labels[index] for index in indices]
    counts = ErrorCounts.of(zip(truths, (reading.text for reading in readings), strict=True), unit)
    return Evaluation(
        [
            EvaluatedLine(lines.names[index], truth, reading.text, reading.confidence, errors)
            for index, truth, reading, errors in zip(
                indices, truths, readings, counts.errors.tolist(), strict=True
            )
        ],
        unreadable,
        recognizer.charset.count_unknown(truths),
        unit,
        counts.metrics(),
        calibration([reading.confidence for reading in readings], counts.errors == 0),
        seconds,
    )
