"""Greedy (best-path) decoding."""

from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc._indices import Lengths, input_lengths_tensor, input_lengths_to_device
from crnn_ext.ctc._inputs import InputType, check_logits, raise_value_error


class GreedyResult(NamedTuple):
    """The result of `greedy_decode`; positions from a sample's length on are -1, in token_logp 0."""

    tokens: Tensor
    """(N, T) int64: the labels."""
    lengths: Tensor
    """(N,) int64: the number of labels."""
    scores: Tensor
    """(N,): log-probability of the best path, in nats."""
    starts: Tensor
    """(N, T) int64: the first frame of each token."""
    ends: Tensor
    """(N, T) int64: one past the last frame of each token."""
    token_logp: Tensor
    """(N, T): mean log-probability of each token over its frames."""


def greedy_decode(
    logits: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    input_type: InputType = "logits",
) -> GreedyResult:
    """The most probable class of each frame, with repeats merged and blanks removed.

    In a tie the lowest class wins.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        input_lengths: (N,), frames of each sample; default: T. Later frames are never read. Values on a GPU
            are not checked, nor are any under torch.compile with logits on a GPU; a length outside [0, T]
            counts as 0 and makes the score NaN.
        blank: the class of the blank, in [0, C).
        input_type: "logits", or "log_probs": scores are sums of the values as they are.

    Returns:
        A GreedyResult on the device of logits; scores are float64 for float64 logits, otherwise float32. NaN
        is never the best class. If scores are normalized, NaN and +inf make them NaN.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape, option or length is invalid.
    """
    normalize = check_logits(logits, blank, input_type)
    batched = logits.dim() == 3
    batch = logits if batched else logits.unsqueeze(1)
    lengths = input_lengths_tensor(input_lengths, batch, batched)
    try:
        lengths = input_lengths_to_device("greedy_decode", lengths, batch)
        result = torch.ops.crnn_ext.greedy_decode.default(batch.detach(), lengths, blank, normalize)
    except RuntimeError as error:
        raise_value_error(error, "greedy_decode")
    return GreedyResult(*(result if batched else (field.squeeze(0) for field in result)))
