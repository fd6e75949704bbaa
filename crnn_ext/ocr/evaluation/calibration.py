"""Calibration: of the lines read with confidence p, a share of p should be correct."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The lines with confidences in [low, high), or [low, high] for the last bin.

    `confidence` is the mean confidence, `accuracy` the share of correct lines; both are None without lines.
    """

    low: float
    high: float
    lines: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """The calibration of confidences: confidence and accuracy in ten bins of equal width.

    `expected_error` is the expected calibration error (ECE): the absolute difference of mean confidence and
    accuracy in each bin, averaged over all lines. It and `mean_confidence` are None without lines.
    """

    mean_confidence: float | None
    expected_error: float | None
    bins: list[Bin]


def calibration(confidences: Sequence[float], correct: npt.NDArray[np.bool_]) -> Calibration:
    """Computes the calibration of L lines.

    Args:
        confidences: the confidence of each line, in [0, 1].
        correct: whether each line was read without errors, `(L,)`.
    """
    values = np.array(confidences, np.float64)
    indices = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    lines, total_confidence, total_correct = (
        np.bincount(indices, weights, BINS) for weights in (None, values, correct.astype(np.float64))
    )
    bins = [
        Bin(
            index / BINS,
            (index + 1) / BINS,
            int(lines[index]),
            float(total_confidence[index] / lines[index]) if lines[index] else None,
            float(total_correct[index] / lines[index]) if lines[index] else None,
        )
        for index in range(BINS)
    ]
    if not len(values):
        return Calibration(None, None, bins)
    expected_error = float(np.abs(total_confidence - total_correct).sum() / len(values))
    return Calibration(float(values.mean()), expected_error, bins)
