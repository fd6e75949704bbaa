"""95% confidence intervals of line accuracies (Wilson) and of error rates (bootstrap)."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_RESAMPLES = 1000

# A fixed seed makes the interval reproducible.
_SEED = 0


@dataclass(frozen=True)
class Rate:
    """A rate and its 95% confidence interval [low, high]."""

    value: float
    low: float
    high: float


def wilson_rate(count: int, lines: int) -> Rate | None:
    """The rate count / lines with its Wilson score interval; None without lines."""
    if lines == 0:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    value = count / lines
    shrinkage = 1 + z * z / lines
    middle = (value + z * z / (2 * lines)) / shrinkage
    half = z / shrinkage * (value * (1 - value) / lines + (z / (2 * lines)) ** 2) ** 0.5
    # Keep rates of 0 and 1 inside the interval despite rounding.
    return Rate(value, max(min(middle - half, value), 0.0), min(max(middle + half, value), 1.0))


def bootstrap_error_rate(errors: npt.NDArray[np.int64], units: npt.NDArray[np.int64]) -> Rate | None:
    """The total errors divided by the total units, with a bootstrap interval over lines.

    The interval ranges from the 2.5% to the 97.5% quantile of the rates of `BOOTSTRAP_RESAMPLES` resamples of
    the lines. It does not depend on the order of the lines.

    Args:
        errors: the errors of each line, `(L,)`.
        units: the characters or words in the truth of each line, `(L,)`.

    Returns:
        The rate and its interval; None if no line has units.
    """
    if units.sum() == 0:
        return None
    # Lines with equal counts are interchangeable: drawing the frequency of each distinct pair of counts from
    # a multinomial distribution is sufficient. There are far fewer pairs than lines.
    pairs, occurrences = np.unique(np.stack([errors, units], axis=1), axis=0, return_counts=True)
    lines = len(errors)
    drawn = np.random.default_rng(_SEED).multinomial(lines, occurrences / lines, size=BOOTSTRAP_RESAMPLES)
    drawn_errors, drawn_units = (drawn @ pairs).T
    # A resample without units has no rate.
    rates = drawn_errors[drawn_units > 0] / drawn_units[drawn_units > 0]
    low, high = np.quantile(rates, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
    return Rate(float(errors.sum() / units.sum()), float(low), float(high))
