"""Reference losses: the sum over all paths, and torch in float64; random batches to compare on."""

import itertools
import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from crnn_ext.ctc import ctc_loss


def brute_force(logits, target, blank):
    """-log of the total probability of all C^T paths that collapse to the target."""
    log_probs = F.log_softmax(logits.double(), -1)
    frames, classes = log_probs.shape
    total = 0.0
    for path in itertools.product(range(classes), repeat=frames):
        collapsed = [label for label, _ in itertools.groupby(path) if label != blank]
        if collapsed == target:
            total += math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path)))
    return -math.log(total) if total > 0 else math.inf


def torch_loss_and_grad(
    logits, targets, input_lengths, target_lengths, blank=0, zero_infinity=False, weights=None
):
    """Losses (N,) of torch and the gradient of their (weighted) sum, in float64."""
    x = logits.detach().double().requires_grad_()
    losses = F.ctc_loss(
        F.log_softmax(x, -1), targets, input_lengths, target_lengths, blank, "none", zero_infinity
    )
    (gradient,) = torch.autograd.grad((losses if weights is None else losses * weights).sum(), x)
    return losses.detach(), gradient


def loss_and_grad(logits, *arguments, weights=None, **options):
    """The same by crnn_ext, on the device of the logits, in their dtype and with their strides."""
    x = logits.detach().requires_grad_()
    weights = None if weights is None else weights.to(x.device)
    with no_synchronization(x.device):
        losses = ctc_loss(x, *arguments, reduction="none", **options)
        total = (losses if weights is None else losses * weights).sum()
        (gradient,) = torch.autograd.grad(total, x)
    return losses.detach().cpu(), gradient.cpu()


@contextmanager
def no_synchronization(device):
    """Makes every call that synchronizes with the GPU an error."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@st.composite
def batches(draw, max_frames=40, max_classes=40, max_target_length=36):
    """(logits, targets, input_lengths, target_lengths, blank); some samples are impossible."""
    frames, samples = draw(st.integers(1, max_frames)), draw(st.integers(1, 5))
    classes = draw(st.integers(2, max_classes))
    blank = draw(st.integers(0, classes - 1))
    columns = draw(st.integers(0, max_target_length))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.1, 3.0, 20.0]))
    logits = torch.randn(frames, samples, classes, generator=generator) * scale
    # With few distinct labels, repeated labels are common.
    labels = torch.randint(
        0, min(classes - 1, draw(st.sampled_from([2, 40]))), (samples, columns), generator=generator
    )
    targets = torch.where(labels >= blank, labels + 1, labels)
    input_lengths = torch.randint(0, frames + 1, (samples,), generator=generator)
    target_lengths = torch.randint(0, columns + 1, (samples,), generator=generator)
    return logits, targets, input_lengths, target_lengths, blank
