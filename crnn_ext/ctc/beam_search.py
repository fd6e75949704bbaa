"""Prefix beam search."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext._arguments import check_bool, check_int, check_number
from crnn_ext.ctc._fusion import HotWordsArgument, LexiconArgument, fusion_arguments
from crnn_ext.ctc._indices import Lengths, input_lengths_tensor, input_lengths_to_device
from crnn_ext.ctc._inputs import InputType, check_logits, raise_value_error
from crnn_ext.ctc.log_probability import log_probability
from crnn_ext.text import NGramModel

# As in csrc/beam_search/beam_search.h.
_MAX_BEAM_SIZE = 1024
_MAX_TOP_K = 1024


class BeamResult(NamedTuple):
    """The result of `beam_search`: distinct texts of each sample, best first.

    Positions from a text's length on are -1, in token_logp 0. If fewer than nbest texts exist, the rest have
    length -1 and scores of -inf.
    """

    tokens: Tensor
    """(N, nbest, T) int64: the labels."""
    lengths: Tensor
    """(N, nbest) int64: the number of labels."""
    scores: Tensor
    """(N, nbest): ranking scores: log_probs plus scores of language model, lexicon and hot words, in nats."""
    log_probs: Tensor
    """(N, nbest): log-probability of the text, summed over the alignments that stayed in the beam (with
    `rescore`, over all alignments), in nats."""
    timesteps: Tensor
    """(N, nbest, T) int64: the frame of each token at which it is most probable."""
    starts: Tensor
    """(N, nbest, T) int64: the first frame of each token in the text's best alignment."""
    ends: Tensor
    """(N, nbest, T) int64: one past the last frame of each token."""
    token_logp: Tensor
    """(N, nbest, T): mean log-probability of each token over its frames."""


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

    The probability of a text is the sum over its alignments, not the best one of them. After each frame the
    search keeps the `beam_size` prefixes with the highest scores; a score is the log-probability of the
    prefix plus the scores of language model, lexicon and hot words. In a tie, a prefix already in the beam
    precedes a new one; then the one extended from the higher-ranked prefix; then the lower token.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        input_lengths: (N,), frames of each sample; default: T. Later frames are never read. Values on a GPU
            are not checked, nor are any under torch.compile with logits on a GPU; a length outside [0, T]
            gives no texts and scores of NaN.
        blank: the class of the blank, in [0, C).
        beam_size: number of prefixes kept after each frame, 1 to 1024.
        nbest: number of texts returned, 1 to beam_size.
        token_top_k: extend prefixes only with the k most probable non-blank tokens of each frame; at most
            1024, unless at least C - 1. None: all tokens.
        token_min_logp: extend prefixes only with tokens of at least this log-probability; nats, at most 0.
            None: no limit.
        beam_threshold: drop prefixes whose score is more than this below the best one; nats. None: no limit.
            No pruning option affects blanks or the continuation of a prefix's last token.
        lm: an n-gram model over tokens, or over the words of `lexicon`.
        lm_weight: factor on the log-probabilities of the model; at least 0.
        token_score: added for each token; nats.
        lexicon: the allowed words: one Lexicon for all samples, or a sequence with one (or None) per sample.
        word_score: added for each word of the lexicon; nats.
        hotwords: preferred words: HotWords for all samples, or a sequence with one (or None) per sample.
        hotword_weight: added for each token of a hot word; nats, at least 0.
        rescore: recompute log_probs over all alignments of each text, including those that the search
            dropped, and rank the texts by the new scores.
        input_type: "logits", or "log_probs": used as they are, not normalized.

    Returns:
        A BeamResult on the device of logits; scores are float64 for float64 logits, otherwise float32. A
        sample with NaN or +inf in its frames has no texts and scores of NaN. There is no gradient.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape, option or length is invalid.
    """
    normalize = check_logits(logits, blank, input_type)
    check_bool("rescore", rescore)
    batched = logits.dim() == 3
    batch = (logits if batched else logits.unsqueeze(1)).detach()
    samples, classes = batch.shape[1:]
    lengths = input_lengths_tensor(input_lengths, batch, batched)
    pruning = _pruning_arguments(beam_size, nbest, token_top_k, token_min_logp, beam_threshold, classes)
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
        tokens, text_lengths, scores, log_probs = _rerank(tokens, text_lengths, scores, log_probs, exact)
    spans = _spans(batch, lengths, tokens, text_lengths, blank, normalize)
    fields = (tokens, text_lengths, scores, log_probs, *spans)
    return BeamResult(*(fields if batched else (field.squeeze(0) for field in fields)))


def check_top_k(name: str, count: int, classes: int) -> None:
    """Checks a limit on the number of tokens per frame."""
    check_int(name, count, 1)
    if _MAX_TOP_K < count < classes - 1:
        raise ValueError(
            f"{name} must be at most {_MAX_TOP_K}, or at least {classes - 1} (all tokens), got {count}"
        )


def _pruning_arguments(
    beam_size: int,
    nbest: int,
    token_top_k: int | None,
    token_min_logp: float | None,
    beam_threshold: float | None,
    classes: int,
) -> tuple[int, int, int, float, float]:
    check_int("beam_size", beam_size, 1, _MAX_BEAM_SIZE)
    check_int("nbest", nbest, 1, beam_size)
    if token_top_k is None:
        token_top_k = classes
    check_top_k("token_top_k", token_top_k, classes)
    min_logp, threshold = -math.inf, math.inf
    if token_min_logp is not None:
        check_number("token_min_logp", token_min_logp, maximum=0, finite=False)
        min_logp = float(token_min_logp)
    if beam_threshold is not None:
        check_number("beam_threshold", beam_threshold, minimum=0, finite=False)
        threshold = float(beam_threshold)
    return beam_size, nbest, min(token_top_k, classes), min_logp, threshold


def _rerank(
    tokens: Tensor, lengths: Tensor, scores: Tensor, log_probs: Tensor, exact: Tensor
) -> tuple[Tensor, ...]:
    """The texts with their exact log-probabilities, sorted by the resulting scores."""
    exists = lengths >= 0
    scores = torch.where(exists, exact + (scores - log_probs), scores)
    log_probs = torch.where(exists, exact, log_probs)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    tokens = tokens.gather(1, order.unsqueeze(2).expand_as(tokens))
    return tokens, lengths.gather(1, order), scores, log_probs.gather(1, order)


def _spans(
    logits: Tensor, input_lengths: Tensor, tokens: Tensor, lengths: Tensor, blank: int, normalize: bool
) -> list[Tensor]:
    """timesteps, starts, ends and token_logp, from the best alignment of each text."""
    samples, nbest, frames = tokens.shape
    texts = tokens.view(samples * nbest, frames), input_lengths, lengths.clamp(min=0).view(-1)
    _, _, starts, ends, peaks, token_logp = torch.ops.crnn_ext.align.default(logits, *texts, blank, normalize)
    return [part.view(samples, nbest, frames) for part in (peaks, starts, ends, token_logp)]
