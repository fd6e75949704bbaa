"""Decoding for the recognizer: from the logits of a network to texts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc import BeamSearchDecoder, Hypothesis, greedy_decode, log_probability
from crnn_ext.text import Charset


class DecodedText(NamedTuple):
    """A text of a sample, with its probability, summed over all alignments.

    Character i has the frames `starts[i] <= t < ends[i]`; `confidences[i]` is the geometric mean of its
    probability over them. The sequences may be longer than the text; values after it are undefined.
    """

    text: str
    probability: float
    starts: Sequence[int]
    ends: Sequence[int]
    confidences: Sequence[float]


Decoding = Callable[[Tensor, Tensor, Charset], list[list[DecodedText]]]
"""Maps logits (T, N, C), frames (N,) and charset to the texts of each sample, best first; maybe none."""


def greedy(logits: Tensor, lengths: Tensor, charset: Charset) -> list[list[DecodedText]]:
    """The text of the best path of each sample."""
    best = greedy_decode(logits, lengths, blank=charset.blank)
    log_probs = log_probability(
        *(logits, best.tokens.unsqueeze(1), lengths, best.lengths.unsqueeze(1)), blank=charset.blank
    )
    texts = charset.decode(best.tokens, best.lengths)
    spans = best.starts.tolist(), best.ends.tolist(), _probabilities(best.token_logp)
    parts = zip(texts, _probabilities(log_probs), *spans, strict=True)
    return [
        [DecodedText(text, probability, *per_character)] for text, (probability,), *per_character in parts
    ]


class BeamSearch:
    """The most probable texts, by a `crnn_ext.ctc.BeamSearchDecoder`.

    Scores rank the texts: the exact log-probability plus those of language model, lexicon and hot words.

    Args:
        charset: the characters of the network.
        **options: all options of the decoder, except `rescore` (always True) and `input_type` ("logits").

    Raises:
        TypeError, ValueError, OSError: as the decoder.
    """

    def __init__(self, charset: Charset, **options: Any) -> None:
        self._charset = charset
        self._decoder = BeamSearchDecoder(charset, rescore=True, input_type="logits", **options)

    def __call__(self, logits: Tensor, lengths: Tensor, charset: Charset) -> list[list[DecodedText]]:
        """The texts of each sample, best first; none if the search finds no text that the lexicon allows.

        Raises:
            ValueError: the charset is not that of the search.
        """
        if charset != self._charset:
            raise ValueError("charset must be that of the BeamSearch, got another one")
        return [
            [_decoded_text(hypothesis) for hypothesis in sample]
            for sample in self._decoder(logits.transpose(0, 1), lengths)
        ]


def _decoded_text(hypothesis: Hypothesis) -> DecodedText:
    # In the dtype of the scores, as greedy computes it.
    log_prob = torch.tensor(hypothesis.log_prob, dtype=hypothesis.token_logp.dtype)
    return DecodedText(
        hypothesis.text,
        _probabilities(log_prob),
        hypothesis.starts.tolist(),
        hypothesis.ends.tolist(),
        _probabilities(hypothesis.token_logp),
    )


def _probabilities(log_probs: Tensor) -> Any:
    """A number, or nested lists as deep as the tensor has dimensions."""
    # Rounding can make the log-probability of a certain text slightly positive.
    return log_probs.exp().clamp(max=1).tolist()
