"""Whether confidences can be believed: of the lines read with confidence p, a share of p should be right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The lines with confidences in [low, high), in the last bin [low, high].

    `confidence` is their mean confidence, `accuracy` the share of them that is right; None without lines.
    """

    low: float
    high: float
    lines: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """The reliability of confidences: what they say and what is true, in ten bins of equal width.

    `expected_error` is the expected calibration error: the distance of confidence and accuracy in a bin,
    averaged over all lines. It and `mean_confidence` are None without lines.
    """

    mean_confidence: float | None
    expected_error: float | None
    bins: list[Bin]


def calibration(confidences: Sequence[float], right: npt.NDArray[np.bool_]) -> Calibration:
    """The calibration of L lines.

    Args:
        confidences: of each line, in [0, 1].
        right: whether it was read without an error, `(L,)`.
    """
    values = np.array(confidences, np.float64)
    indices = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    lines, total_confidence, total_right = (
        np.bincount(indices, weights, BINS) for weights in (None, values, right.astype(np.float64))
    )
    bins = [
        Bin(
            index / BINS,
            (index + 1) / BINS,
            int(lines[index]),
            float(total_confidence[index] / lines[index]) if lines[index] else None,
            float(total_right[index] / lines[index]) if lines[index] else None,
        )
        for index in range(BINS)
    ]
    if not len(values):
        return Calibration(None, None, bins)
    expected_error = float(np.abs(total_confidence - total_right).sum() / len(values))
    return Calibration(float(values.mean()), expected_error, bins)
