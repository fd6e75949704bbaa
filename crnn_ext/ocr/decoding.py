"""From a network's logits to texts: ways of decoding for the recognizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from crnn_ext.ctc import beam_search, greedy_decode, log_probability
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel


class Decoded(NamedTuple):
    """A text of a sample, its probability, all alignments added up, and the frames of each character."""

    text: str
    probability: float
    starts: Sequence[int]
    ends: Sequence[int]


Decoding = Callable[[Tensor, Tensor, Charset], list[list[Decoded]]]
"""From logits (T, N, C) and frames (N,) of each sample to its texts, best first, perhaps none."""


def greedy(logits: Tensor, lengths: Tensor, charset: Charset) -> list[list[Decoded]]:
    """The text of the best path of each sample."""
    best = greedy_decode(logits, lengths, blank=charset.blank)
    log_probs = log_probability(
        *(logits, best.tokens.unsqueeze(1), lengths, best.lengths.unsqueeze(1)), blank=charset.blank
    )
    texts = charset.decode(best.tokens, best.lengths)
    parts = zip(texts, _probabilities(log_probs), best.starts.tolist(), best.ends.tolist(), strict=True)
    return [[Decoded(text, probability, starts, ends)] for text, (probability,), starts, ends in parts]


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

    def __call__(self, logits: Tensor, lengths: Tensor, charset: Charset) -> list[list[Decoded]]:
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
        numbers = (part.tolist() for part in (result.lengths, result.starts, result.ends))
        return [
            [
                Decoded(text, probability, starts, ends)
                for text, probability, length, starts, ends in zip(*of_sample, strict=True)
                if length >= 0
            ]
            for of_sample in zip(texts, probabilities, *numbers, strict=True)
        ]


def _probabilities(log_probs: Tensor) -> list[list[float]]:
    # Rounding can leave the logarithm of a certain text a little above 0.
    probabilities: list[list[float]] = log_probs.exp().clamp(max=1).tolist()
    return probabilities
