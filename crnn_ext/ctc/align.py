"""Forced alignment: the most probable path of a given text."""

from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc._indices import (
    Lengths,
    Targets,
    check_cpu_values,
    lengths_tensor,
    longest_target,
    targets_tensor,
    to_device,
)
from crnn_ext.ctc._inputs import InputType, check_logits, raise_value_error


class Alignment(NamedTuple):
    """The result of `align`; padding after a sample's frames and labels is -1, in token_logp 0."""

    tokens: Tensor
    """(N, T) int64: the label or blank of each frame."""
    scores: Tensor
    """(N,): log-probability of the path, in nats."""
    starts: Tensor
    """(N, S) int64: the first frame of each label."""
    ends: Tensor
    """(N, S) int64: one past the last frame of each label."""
    peaks: Tensor
    """(N, S) int64: the frame of each label at which it is most probable; the earliest in a tie."""
    token_logp: Tensor
    """(N, S): mean log-probability of each label over its frames."""


def align(
    logits: Tensor,
    targets: Targets,
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    blank: int = 0,
    input_type: InputType = "logits",
) -> Alignment:
    """The most probable path of each target, and with it the frames of each label.

    Ties between paths with equal sums of logits are resolved while backtracking from the last frame: ending
    in the final blank is preferred to ending in the last label, staying in a state to stepping from the
    previous one, and a step to skipping a blank. Labels are thus placed as early as possible.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        targets: (N, S) padded, or 1-D concatenated (sum of target_lengths); integers in [0, C) other than
            blank. Padding is never read. (S,) for one sample.
        input_lengths: (N,), frames of each sample, in [0, T]; a tensor of any integer dtype or a sequence of
            int; 0-d or an int for one sample. Later frames are never read.
        target_lengths: (N,), labels of each sample; same types.
        blank: the class of the blank, in [0, C).
        input_type: "logits", or "log_probs": values are used as they are, not normalized, and scores are
            their sums.

    Returns:
        An Alignment on the device of logits; scores are float64 for float64 logits, otherwise float32. For
        concatenated targets, S is the smaller of T and their number. A sample without a path (too few frames,
        or masked classes) has score -inf. A sample with NaN or +inf in its frames (for log_probs, in values
        that its target uses) has score NaN. The other fields of both are -1, and 0 in token_logp. Lengths and
        targets on a GPU are not checked, nor are any under torch.compile with logits on a GPU; invalid ones
        make the score NaN, and for concatenated targets also the scores of all later samples. There is no
        gradient.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape, option, length or label is invalid; the message names it and its value. Under
            torch.compile, invalid lengths and labels raise RuntimeError with the same message.
    """
    normalize = check_logits(logits, blank, input_type)
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
