"""Alignment: the most probable path of given texts."""

from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc._arguments import NORMALIZE, InputType, check_logits, parse_choice, raise_value_error
from crnn_ext.ctc._indices import (
    Lengths,
    Targets,
    check_cpu_values,
    lengths_tensor,
    longest_target,
    targets_tensor,
    to_device,
)


class Alignment(NamedTuple):
    """What :func:`align` finds; behind a sample's frames and labels stands -1, in token_logp 0."""

    tokens: Tensor
    """(N, T) int64: the label or blank of each frame."""
    scores: Tensor
    """(N,): log-probability of the path, in nats."""
    starts: Tensor
    """(N, S) int64: the first frame of each label."""
    ends: Tensor
    """(N, S) int64: the frame after its last one."""
    peaks: Tensor
    """(N, S) int64: the frame in between where the label is most probable; the first one of equals."""
    token_logp: Tensor
    """(N, S): mean log-probability of the label over its frames."""


def align(
    logits: Tensor,
    targets: Targets,
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    blank: int = 0,
    input_type: InputType = "logits",
) -> Alignment:
    """The most probable path of each target: which frames each of its labels was read from.

    Of paths with equal sums of logits it takes the one that is found going back from the end: there it is
    rather on the last blank than on the last label; into each frame it rather stays in its state than steps
    from the one before, and rather steps than skips a blank. So labels are read as early as they can be.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        targets: (N, S) padded, or 1-D concatenated (sum of target_lengths); integers in [0, C) other than
            blank. Padding is never looked at. (S,) for one sample.
        input_lengths: (N,), frames of each sample, in [0, T]; a tensor of any integer dtype or a sequence of
            int; 0-d or an int for one sample. Frames behind them are never read.
        target_lengths: (N,), labels of each sample; likewise.
        blank: the class that stands for no label, in [0, C).
        input_type: "logits", or "log_probs": the path is then that of the values as they are, and scores are
            sums of them.

    Returns:
        An Alignment on the device of logits; scores are float64 for float64 logits, float32 for all others.
        For concatenated targets its S is the smaller one of T and their number. A sample without a path (too
        few frames, or masked classes) has score -inf, one with NaN or +inf in its live frames (in those of
        log_probs that its target needs) NaN; both have -1 everywhere else, 0 in token_logp. Values of
        lengths and targets on a GPU are not checked, nor any under torch.compile with logits there: those
        that break the rules make the score NaN, of concatenated targets also the scores behind them. There is
        no gradient.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, option, length or label breaks its rule; the message names it and the value.
            Within torch.compile it is a RuntimeError with the same text for lengths and labels.
    """
    check_logits(logits, blank)
    normalize = bool(parse_choice("input_type", input_type, NORMALIZE))
    batched = logits.dim() == 3
    batch = logits if batched else logits.unsqueeze(1)
    frames, samples, classes = batch.shape
    indices = [
        targets_tensor(targets, samples, batched),
        lengths_tensor("input_lengths", input_lengths, samples, batched),
        lengths_tensor("target_lengths", target_lengths, samples, batched),
    ]
    try:
        if logits.device.type != "cpu" and not torch.compiler.is_compiling():
            check_cpu_values("align", indices, frames, classes, blank)
        longest = longest_target(indices[2], logits.device)
        arguments = (batch.detach(), *to_device(indices, logits.device), blank, normalize, longest)
        result = torch.ops.crnn_ext.align.default(*arguments)
    except RuntimeError as error:
        raise_value_error(error, "align")
    return Alignment(*(result if batched else (field.squeeze(0) for field in result)))
