"""Beam search: the most probable texts."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc._arguments import NORMALIZE, InputType, check_logits, choice, raise_value_error
from crnn_ext.ctc._indices import Lengths, lengths_tensor, sent

_MOST_BEAM = 1024


class BeamResult(NamedTuple):
    """What :func:`beam_search` reads: texts of a sample, best first, all different.

    From a text's length on, positions hold -1. Where fewer than nbest texts are possible, the rest have
    length -1 and scores of -inf.
    """

    tokens: Tensor
    """(N, nbest, T) int64: the labels."""
    lengths: Tensor
    """(N, nbest) int64: how many there are."""
    scores: Tensor
    """(N, nbest): what the texts are ranked by: log_probs and what the options add, in nats."""
    log_probs: Tensor
    """(N, nbest): log-probability of the text, summed over the alignments that the beam has kept, in nats."""


def beam_search(
    logits: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    beam_size: int = 16,
    nbest: int = 1,
    token_top_k: int | None = None,
    token_min_logp: float | None = None,
    beam_threshold: float | None = None,
    input_type: InputType = "logits",
) -> BeamResult:
    check_logits(logits, blank)
    normalize = bool(choice("input_type", input_type, NORMALIZE))
    _check_count("beam_size", beam_size, 1, _MOST_BEAM)
    _check_count("nbest", nbest, 1, beam_size)
    batched = logits.dim() == 3
    batch = logits if batched else logits.unsqueeze(1)
    frames, samples, classes = batch.shape
    if input_lengths is None:
        lengths = torch.full((samples,), frames, dtype=torch.int64, device=logits.device)
    else:
        lengths = lengths_tensor("input_lengths", input_lengths, samples, batched)
    options = (
        blank,
        normalize,
        beam_size,
        nbest,
        classes if token_top_k is None else token_top_k,
        -math.inf if token_min_logp is None else token_min_logp,
        math.inf if beam_threshold is None else beam_threshold,
    )
    try:
        if logits.device.type != "cpu" and lengths.device.type == "cpu" and not torch.compiler.is_compiling():
            torch.ops.crnn_ext.beam_search_check.default(lengths, frames)
        (lengths,) = sent([lengths], logits.device)
        result = torch.ops.crnn_ext.beam_search.default(
            batch.detach(), lengths, *options, [], 0, False, 0.0, [], 0, 0.0, [], 0.0, 0.0, 0.0
        )
    except RuntimeError as error:
        raise_value_error(error, "beam_search")
    return BeamResult(*(result if batched else (field.squeeze(0) for field in result)))


def _check_count(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, and it is {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be in [{least}, {most}], and it is {value}")
