"""The learning-rate schedule."""

import math

# Initial and final learning rate relative to the maximum: the defaults of torch's OneCycleLR.
_INITIAL = 1 / 25
_FINAL = _INITIAL / 1e4


def one_cycle(step: int, total_steps: int, max_lr: float, warmup: float) -> float:
    """The learning rate of a step under the one-cycle schedule with cosine annealing.

    The values equal those of `torch.optim.lr_scheduler.OneCycleLR`. This function has no state, so resumed
    runs and skipped steps need no special care.

    Args:
        step: the step, in [0, `total_steps`).
        total_steps: steps of the run.
        max_lr: the maximum learning rate.
        warmup: fraction of the steps before the maximum, in [0, 1].

    Source: L. N. Smith and N. Topin, "Super-Convergence", 2018.
    """
    peak = warmup * total_steps - 1
    if step < peak:
        return _anneal(_INITIAL * max_lr, max_lr, step / peak)
    return _anneal(max_lr, _FINAL * max_lr, (step - peak) / max(total_steps - 1 - peak, 1))


def _anneal(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
