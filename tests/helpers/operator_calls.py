"""The operators, and a call of each for the tests that hold for all of them."""

import torch
from helpers.paths import ROOT

from crnn_ext.ctc import align, beam_search, ctc_loss, greedy_decode, log_probability

# The folders of csrc/ that hold kernels.
OPERATORS = sorted(
    {path.parent.name for name in ("cpu.cpp", "cuda.cu") for path in (ROOT / "csrc").glob(f"*/{name}")}
)


def _loss_and_gradient(logits, *arguments):
    x = logits.detach().requires_grad_()
    losses = ctc_loss(x, *arguments, reduction="none")
    return losses.detach(), *torch.autograd.grad(losses.sum(), x)


def _log_probability(logits, targets, input_lengths, target_lengths):
    return [log_probability(logits, targets[:, None], input_lengths, target_lengths[:, None])]


# By folder: a function of (logits, targets, input_lengths, target_lengths) that returns tensors.
# logits: (T, N, C); targets: (N, S)
CALLS = {
    "align": align,
    "beam_search": lambda logits, _, lengths, __: beam_search(logits, lengths, nbest=3),
    "ctc_loss": _loss_and_gradient,
    "greedy": lambda logits, _, lengths, __: greedy_decode(logits, lengths),
    "log_probability": _log_probability,
}
