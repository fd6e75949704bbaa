"""The learning rate of each step."""

import math

# The first and the last rate, as parts of the highest: those of torch's OneCycleLR.
_FIRST = 1 / 25
_LAST = _FIRST / 1e4


def one_cycle(step: int, steps: int, highest: float, warmup: float) -> float:
    """The rate of a step, counted from 0, under the one-cycle schedule with cosines.

    It is that of `torch.optim.lr_scheduler.OneCycleLR`, which remembers where it is; this one needs not, and
    so a run that goes on, or in which steps are skipped, has nothing to put right.

    Args:
        step: of which the rate is, from 0 to `steps` - 1.
        steps: of the run.
        highest: the highest rate.
        warmup: the share of the steps in which it is reached, from 0 to 1.

    Source: L. N. Smith and N. Topin, "Super-Convergence", 2018.
    """
    top = warmup * steps - 1
    if step < top:
        return _between(_FIRST * highest, highest, step / top)
    return _between(highest, _LAST * highest, (step - top) / max(steps - 1 - top, 1))


def _between(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
