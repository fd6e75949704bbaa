"""Beam search: the most probable texts."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc._arguments import (
    NORMALIZE,
    InputType,
    check_count,
    check_logits,
    check_number,
    parse_choice,
    raise_value_error,
)
from crnn_ext.ctc._fusion import HotWordsArgument, LexiconArgument, fusion_arguments
from crnn_ext.ctc._indices import Lengths, input_lengths_tensor, input_lengths_to_device
from crnn_ext.ctc.log_probability import log_probability
from crnn_ext.text import NGramModel

# As in csrc/beam_search/beam_search.h.
_MAX_BEAM_SIZE = 1024
_MAX_TOP_K = 1024


class BeamResult(NamedTuple):
    """What :func:`beam_search` reads: texts of a sample, best first, all different.

    From a text's length on, positions hold -1 (0 in token_logp). Where fewer than nbest texts are possible,
    the rest have length -1 and scores of -inf.
    """

    tokens: Tensor
    """(N, nbest, T) int64: the labels."""
    lengths: Tensor
    """(N, nbest) int64: how many there are."""
    scores: Tensor
    """(N, nbest): what the texts are ranked by: log_probs and what the options add to it, in nats."""
    log_probs: Tensor
    """(N, nbest): log-probability of the text, summed over the alignments that stayed in the beam (with
    `rescore`, over all); nats."""
    timesteps: Tensor
    """(N, nbest, T) int64: the frame at which each token is most probable, among those it was read from."""
    starts: Tensor
    """(N, nbest, T) int64: the first frame that each token was read from in the text's best alignment."""
    ends: Tensor
    """(N, nbest, T) int64: the frame after the last one."""
    token_logp: Tensor
    """(N, nbest, T): mean log-probability of the token over these frames."""


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
    lm: NGramModel | None = None,
    lm_weight: float = 0.5,
    token_score: float = 0.0,
    lexicon: LexiconArgument = None,
    word_score: float = 0.0,
    hotwords: HotWordsArgument = None,
    hotword_weight: float = 1.0,
    rescore: bool = False,
    input_type: InputType = "logits",
) -> BeamResult:
    """The most probable texts of each sample, by prefix beam search.

    The probability of a text is the sum over all its alignments, not the best one of them. After each frame
    the `beam_size` best prefixes are kept, by score: the log-probability of the prefix and what language
    model, lexicon and hot words add. Of equal scores a prefix that was there before comes before a new one,
    then the one whose origin ranked higher, then the lower token.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        input_lengths: (N,), frames of each sample; all T if None. Frames behind them are never read. Values
            on a GPU are not checked, nor any under torch.compile with logits there: one outside [0, T] gives
            no texts, and scores of NaN.
        blank: the class that stands for no label, in [0, C).
        beam_size: prefixes that are kept, 1 to 1024.
        nbest: texts that are returned, 1 to beam_size.
        token_top_k: only so many of a frame's tokens, the most probable ones, may begin there; at most 1024,
            or C - 1 and more for all. None: all.
        token_min_logp: only tokens with at least this log-probability may begin at a frame; nats, at most 0.
            None: all.
        beam_threshold: prefixes whose score is lower than the best one's by more than this are dropped; nats.
            None: none are. No option ever hinders a blank, or a token that was begun to go on.
        lm: an n-gram model over tokens, or over the words of `lexicon`.
        lm_weight: what its log-probabilities are multiplied by; at least 0.
        token_score: added for each token; nats.
        lexicon: the words that may be read; one Lexicon, or one (or None) for each sample.
        word_score: added for each word of the lexicon; nats.
        hotwords: words to prefer; HotWords, or one (or None) for each sample.
        hotword_weight: added for each token of a hot word; nats, at least 0.
        rescore: whether log_probs of the texts found are computed anew, over all their alignments, also those
            that were dropped on the way, and the texts ranked by that.
        input_type: "logits", or "log_probs": taken as they are, not normalised.

    Returns:
        A BeamResult on the device of logits; scores are float64 for float64 logits, float32 for all others. A
        sample with NaN or +inf in its live frames has no texts, and scores of NaN. There is no gradient.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, option or length breaks its rule.
    """
    check_logits(logits, blank)
    normalize = bool(parse_choice("input_type", input_type, NORMALIZE))
    if not isinstance(rescore, bool):
        raise TypeError(f"rescore must be a bool, and it is {type(rescore).__name__}")
    batched = logits.dim() == 3
    batch = (logits if batched else logits.unsqueeze(1)).detach()
    samples, classes = batch.shape[1:]
    lengths = input_lengths_tensor(input_lengths, batch, batched)
    pruning = _pruning(beam_size, nbest, token_top_k, token_min_logp, beam_threshold, classes)
    fusion = fusion_arguments(
        *(lm, lm_weight, token_score, lexicon, word_score, hotwords, hotword_weight),
        samples=samples,
        classes=classes,
        blank=blank,
        device=logits.device,
    )
    try:
        lengths = input_lengths_to_device("beam_search", lengths, batch)
        result = torch.ops.crnn_ext.beam_search.default(batch, lengths, blank, normalize, *pruning, *fusion)
    except RuntimeError as error:
        raise_value_error(error, "beam_search")
    tokens, text_lengths, scores, log_probs = result
    if rescore:
        exact = log_probability(
            *(batch, tokens, lengths, text_lengths), blank=blank, input_type=input_type, validate=False
        )
        tokens, text_lengths, scores, log_probs = _ranked_anew(tokens, text_lengths, scores, log_probs, exact)
    spans = _spans(batch, lengths, tokens, text_lengths, blank, normalize)
    fields = (tokens, text_lengths, scores, log_probs, *spans)
    return BeamResult(*(fields if batched else (field.squeeze(0) for field in fields)))


def check_top_k(name: str, count: int, classes: int) -> None:
    """Checks how many of a frame's tokens may begin there."""
    check_count(name, count, 1)
    if _MAX_TOP_K < count < classes - 1:
        raise ValueError(
            f"{name} must be at most {_MAX_TOP_K}, or take all of the C={classes} classes, and it is {count}"
        )


def _pruning(
    beam_size: int,
    nbest: int,
    token_top_k: int | None,
    token_min_logp: float | None,
    beam_threshold: float | None,
    classes: int,
) -> tuple[int, int, int, float, float]:
    check_count("beam_size", beam_size, 1, _MAX_BEAM_SIZE)
    check_count("nbest", nbest, 1, beam_size)
    if token_top_k is None:
        token_top_k = classes
    check_top_k("token_top_k", token_top_k, classes)
    least, threshold = -math.inf, math.inf
    if token_min_logp is not None:
        check_number("token_min_logp", token_min_logp, most=0, finite=False)
        least = float(token_min_logp)
    if beam_threshold is not None:
        check_number("beam_threshold", beam_threshold, least=0, finite=False)
        threshold = float(beam_threshold)
    return beam_size, nbest, min(token_top_k, classes), least, threshold


def _ranked_anew(
    tokens: Tensor, lengths: Tensor, scores: Tensor, log_probs: Tensor, exact: Tensor
) -> tuple[Tensor, ...]:
    """The texts with their exact log-probabilities, by the scores that these give."""
    is_there = lengths >= 0
    scores = torch.where(is_there, exact + (scores - log_probs), scores)
    log_probs = torch.where(is_there, exact, log_probs)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    tokens = tokens.gather(1, order.unsqueeze(2).expand_as(tokens))
    return tokens, lengths.gather(1, order), scores, log_probs.gather(1, order)


def _spans(
    logits: Tensor, input_lengths: Tensor, tokens: Tensor, lengths: Tensor, blank: int, normalize: bool
) -> list[Tensor]:
    """From the best alignment of each text: timesteps, starts, ends, token_logp."""
    samples, nbest, frames = tokens.shape
    texts = tokens.view(samples * nbest, frames), input_lengths, lengths.clamp(min=0).view(-1)
    _, _, starts, ends, peaks, token_logp = torch.ops.crnn_ext.align.default(logits, *texts, blank, normalize)
    return [part.view(samples, nbest, frames) for part in (peaks, starts, ends, token_logp)]
