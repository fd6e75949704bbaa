"""Greedy decoding: the best path."""

from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc._arguments import NORMALIZE, InputType, check_logits, parse_choice, raise_value_error
from crnn_ext.ctc._indices import Lengths, input_lengths_tensor, input_lengths_to_device


class GreedyResult(NamedTuple):
    """What :func:`greedy_decode` reads; from a sample's length on, positions hold -1 (0 in token_logp)."""

    tokens: Tensor
    """(N, T) int64: the labels."""
    lengths: Tensor
    """(N,) int64: how many there are."""
    scores: Tensor
    """(N,): log-probability of the best path, in nats."""
    starts: Tensor
    """(N, T) int64: the first frame of each token."""
    ends: Tensor
    """(N, T) int64: the frame after its last one."""
    token_logp: Tensor
    """(N, T): mean log-probability of the token over its frames."""


def greedy_decode(
    logits: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    input_type: InputType = "logits",
) -> GreedyResult:
    """The most probable class of each frame, repeats merged and blanks left out; the lowest class wins ties.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        input_lengths: (N,), frames of each sample; all T if None. Frames behind them are never read. Values
            on a GPU are not checked, nor any under torch.compile with logits there: one outside [0, T] counts
            as 0, and makes the score NaN.
        blank: the class that stands for no label, in [0, C).
        input_type: "logits", or "log_probs": scores are then sums of the values as they are.

    Returns:
        A GreedyResult on the device of logits; scores are float64 for float64 logits, float32 for all others.
        NaN is passed over in search of the best class; it makes the scores NaN, as +inf does, where they are
        normalised.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, option or length breaks its rule.
    """
    check_logits(logits, blank)
    normalize = bool(parse_choice("input_type", input_type, NORMALIZE))
    batched = logits.dim() == 3
    batch = logits if batched else logits.unsqueeze(1)
    lengths = input_lengths_tensor(input_lengths, batch, batched)
    try:
        lengths = input_lengths_to_device("greedy_decode", lengths, batch)
        result = torch.ops.crnn_ext.greedy_decode.default(batch.detach(), lengths, blank, normalize)
    except RuntimeError as error:
        raise_value_error(error, "greedy_decode")
    return GreedyResult(*(result if batched else (field.squeeze(0) for field in result)))
