"""From a network's logits to texts: ways of decoding for the recognizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from crnn_ext.ctc import beam_search, greedy_decode, log_probability
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel


class DecodedText(NamedTuple):
    """A text of a sample, and its probability, all alignments added up.

    Character i was read from the frames `starts[i] <= t < ends[i]`, and `confidences[i]` is the geometric
    mean of its probability over them. Behind the text the sequences may hold anything.
    """

    text: str
    probability: float
    starts: Sequence[int]
    ends: Sequence[int]
    confidences: Sequence[float]


Decoding = Callable[[Tensor, Tensor, Charset], list[list[DecodedText]]]
"""From logits (T, N, C) and frames (N,) of each sample to its texts, best first, perhaps none."""


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
        [DecodedText(text, probability, *of_characters)] for text, (probability,), *of_characters in parts
    ]


@dataclass(frozen=True)
class BeamSearch:
    """The most probable texts, under a language model and with the words that may or should be read.

    The options are those of `crnn_ext.ctc.beam_search`; the texts found are ranked by their exact
    probabilities and what the options add.
    """

    beam_size: int = 16
    nbest: int = 1
    lm: NGramModel | None = None
    lm_weight: float = 0.5
    lexicon: Lexicon | None = None
    hotwords: HotWords | None = None
    hotword_weight: float = 1.0

    def __call__(self, logits: Tensor, lengths: Tensor, charset: Charset) -> list[list[DecodedText]]:
        """The texts of each sample, best first; none where the search finds none that the lexicon allows."""
        result = beam_search(
            logits,
            lengths,
            blank=charset.blank,
            beam_size=self.beam_size,
            nbest=self.nbest,
            lm=self.lm,
            lm_weight=self.lm_weight,
            lexicon=self.lexicon,
            hotwords=self.hotwords,
            hotword_weight=self.hotword_weight,
            rescore=True,
        )
        texts = charset.decode(result.tokens, result.lengths)
        probabilities = _probabilities(result.log_probs)
        spans = result.starts.tolist(), result.ends.tolist(), _probabilities(result.token_logp)
        return [
            [
                DecodedText(text, probability, *of_characters)
                for length, text, probability, *of_characters in zip(*of_sample, strict=True)
                if length >= 0
            ]
            for of_sample in zip(result.lengths.tolist(), texts, probabilities, *spans, strict=True)
        ]


def _probabilities(log_probs: Tensor) -> list[Any]:
    """Nested lists, as deep as the tensor has dimensions."""
    # Rounding can leave the logarithm of a certain text a little above 0.
    probabilities: list[Any] = log_probs.exp().clamp(max=1).tolist()
    return probabilities
