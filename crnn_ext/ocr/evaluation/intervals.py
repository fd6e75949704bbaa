"""95 % confidence intervals of what is counted line by line: shares of lines, and errors over units."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_RESAMPLES = 1000

# Fixed, so that the same lines have the same interval wherever it is computed.
_SEED = 0


@dataclass(frozen=True)
class Rate:
    """A rate and its 95 % confidence interval [low, high]."""

    value: float
    low: float
    high: float


def wilson_rate(count: int, lines: int) -> Rate | None:
    """The share of lines of which something is true, with Wilson's score interval; None without lines."""
    if lines == 0:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    value = count / lines
    shrinkage = 1 + z * z / lines
    middle = (value + z * z / (2 * lines)) / shrinkage
    half = z / shrinkage * (value * (1 - value) / lines + (z / (2 * lines)) ** 2) ** 0.5
    # Rounding must not put the value of no lines, or of all of them, outside.
    return Rate(value, max(min(middle - half, value), 0.0), min(max(middle + half, value), 1.0))


def bootstrap_error_rate(errors: npt.NDArray[np.int64], units: npt.NDArray[np.int64]) -> Rate | None:
    """The errors of all lines over the units of all, with a bootstrap interval over lines.

    The interval goes from the 2.5 % to the 97.5 % quantile of the rates of `BOOTSTRAP_RESAMPLES` sets of as many lines,
    drawn with replacement. It does not depend on the order of the lines.

    Args:
        errors: of each line, `(L,)`.
        units: characters or words in the truth of each line, `(L,)`.

    Returns:
        None if no line has units.
    """
    if units.sum() == 0:
        return None
    # Lines with the same counts are alike. It is enough to draw how often each pair of counts comes, from a
    # multinomial distribution over the pairs, which are far fewer than the lines.
    pairs, occurrences = np.unique(np.stack([errors, units], axis=1), axis=0, return_counts=True)
    lines = len(errors)
    drawn = np.random.default_rng(_SEED).multinomial(lines, occurrences / lines, size=BOOTSTRAP_RESAMPLES)
    drawn_errors, drawn_units = (drawn @ pairs).T
    # A set in which no line has units has no rate.
    rates = drawn_errors[drawn_units > 0] / drawn_units[drawn_units > 0]
    low, high = np.quantile(rates, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
    return Rate(float(errors.sum() / units.sum()), float(low), float(high))
