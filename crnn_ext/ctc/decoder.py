"""Beam search between tensors and texts."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor

from crnn_ext.ctc._indices import Lengths
from crnn_ext.ctc.beam_search import BeamResult, beam_search
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel

_Path = str | os.PathLike[str]


class Hypothesis(NamedTuple):
    """A text that :class:`BeamSearchDecoder` found for a sample."""

    tokens: Tensor
    """(length,) int64, on the CPU: the classes, without blanks and repetitions."""
    words: list[str]
    """The text between its spaces."""
    text: str
    """The tokens' names one after the other, spaces for the separator of words, none at the ends."""
    score: float
    """What texts are ranked by: log-probability and what the options add to it, in nats."""
    timesteps: Tensor
    """(length,) int64, on the CPU: the frame at which each token is most probable."""


class BeamSearchDecoder:
    """:func:`beam_search` for a network's vocabulary, with the argument names of torchaudio's `ctc_decoder`.

    It adds up the alignments of a text, as torchaudio does with `log_add=True`, and always. It pickles, also
    into new processes, and holds nothing that changes from call to call.

    Args:
        tokens: the names of the classes in their order: a Charset, which also knows the blank, a sequence of
            str, or a file of them, one a line.
        blank_token: the name of the blank; of a Charset's tokens none needs to be given.
        sil_token: the token that separates words, which texts show as a space. None: " " of a Charset, "|" of
            other tokens, where they have it.
        lexicon: the only words that may be read: a Lexicon, or a file of lines "word token token ...".
        lm: an NGramModel, or an ARPA file, plain or compressed by gzip: over the words of the lexicon if
            there is one, otherwise over tokens.
        nbest: texts that are returned.
        beam_size: prefixes that are kept.
        beam_size_token: only so many of a frame's tokens, the most probable ones, may begin there; the blank
            is not among them. None: all.
        beam_threshold: prefixes whose score is lower than the best one's by more than this are dropped; nats.
            None: none are.
        lm_weight: what the model's log-probabilities are multiplied by.
        word_score: added for each word of the lexicon; nats.
        unk_score: added for each word that is not in the lexicon; -inf forbids them. Only for a lexicon that
            is a file: a Lexicon has its own.
        hotwords: words to prefer: HotWords, or str in which every character is a token.
        hotword_weight: added for each token of a hot word; nats.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a token is missing or there twice; a file is not of its format, with the number of the
            line.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        tokens: Charset | Sequence[str] | _Path,
        *,
        blank_token: str = "-",
        sil_token: str | None = None,
        lexicon: Lexicon | _Path | None = None,
        lm: NGramModel | _Path | None = None,
        nbest: int = 1,
        beam_size: int = 16,
        beam_size_token: int | None = None,
        beam_threshold: float | None = None,
        lm_weight: float = 0.5,
        word_score: float = 0.0,
        unk_score: float = -math.inf,
        hotwords: HotWords | Iterable[str] | None = None,
        hotword_weight: float = 1.0,
    ) -> None:
        if isinstance(tokens, Charset):
            self._names = [*tokens.characters[: tokens.blank], "", *tokens.characters[tokens.blank :]]
            self._blank = tokens.blank
        else:
            self._names = _token_names(tokens)
            if blank_token not in self._names:
                raise ValueError(f"blank_token must be one of the tokens, and it is {blank_token!r}")
            self._blank = self._names.index(blank_token)
        self._separator = self._word_separator(sil_token, " " if isinstance(tokens, Charset) else "|")
        separators = [] if self._separator is None else [self._separator]
        if isinstance(lexicon, str | os.PathLike):
            lexicon = Lexicon.from_spellings(
                _spellings(lexicon),
                self._names,
                separators=separators,
                unknown_score=None if unk_score == -math.inf else unk_score,
            )
        if isinstance(lm, str | os.PathLike):
            over = lexicon if lexicon is not None else tokens if isinstance(tokens, Charset) else self._names
            lm = NGramModel.from_arpa(lm, over)
        if hotwords is not None and not isinstance(hotwords, HotWords):
            space = self._separator or " "
            spelt = {
                word: [space if character == " " else character for character in word] for word in hotwords
            }
            hotwords = HotWords.from_spellings(spelt, self._names, separators=separators)
        self._search = partial(
            beam_search,
            blank=self._blank,
            beam_size=beam_size,
            nbest=nbest,
            token_top_k=beam_size_token,
            beam_threshold=beam_threshold,
            lm=lm,
            lm_weight=lm_weight,
            lexicon=lexicon,
            word_score=word_score,
            hotwords=hotwords,
            hotword_weight=hotword_weight,
        )

    def __call__(self, emissions: Tensor, lengths: Lengths | None = None) -> list[list[Hypothesis]]:
        """The best texts of each sample, best first; fewer than `nbest` where no more are possible.

        Args:
            emissions: (N, T, C), batch first; logits or log-probabilities.
            lengths: (N,), frames of each sample; all T if None.
        """
        if emissions.dim() != 3:
            raise ValueError(f"emissions must be (N, T, C), and its shape is {tuple(emissions.shape)}")
        return self._hypotheses(self._search(emissions.transpose(0, 1), lengths))

    def stream(self, batches: Iterable[tuple[Tensor, Lengths | None]]) -> Iterator[list[Hypothesis]]:
        """The texts of each sample of many batches, in order, each batch decoded when it is reached."""
        for emissions, lengths in batches:
            yield from self(emissions, lengths)

    def idxs_to_tokens(self, idxs: Tensor) -> list[str]:
        """The names of classes."""
        return [self._names[index] for index in idxs.tolist()]

    def _word_separator(self, sil_token: str | None, usual: str) -> str | None:
        if sil_token is None:
            return usual if usual in self._names else None
        if sil_token not in self._names:
            raise ValueError(f"sil_token must be one of the tokens, and it is {sil_token!r}")
        return sil_token

    def _hypotheses(self, result: BeamResult) -> list[list[Hypothesis]]:
        tokens, timesteps = result.tokens.cpu(), result.timesteps.cpu()
        samples = zip(tokens.tolist(), result.lengths.tolist(), result.scores.tolist(), strict=True)
        return [
            [
                self._hypothesis(numbers[k][:length], score, tokens[n, k, :length], timesteps[n, k, :length])
                for k, (length, score) in enumerate(zip(lengths, scores, strict=True))
                if length >= 0
            ]
            for n, (numbers, lengths, scores) in enumerate(samples)
        ]

    def _hypothesis(self, numbers: list[int], score: float, tokens: Tensor, timesteps: Tensor) -> Hypothesis:
        text = "".join(self._names[number] for number in numbers)
        if self._separator is not None:
            text = text.replace(self._separator, " ").strip(" ")
        return Hypothesis(tokens, text.split(), text, score, timesteps)


def _token_names(tokens: Sequence[str] | _Path) -> list[str]:
    if isinstance(tokens, str | os.PathLike):
        with open(tokens, encoding="utf-8") as file:
            tokens = [line.rstrip("\r\n") for line in file]
    names = list(tokens)
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"tokens[{index}] must be a str, and it is {type(name).__name__}")
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"tokens must be distinct, and {twice!r} is there twice")
    return names


def _spellings(path: _Path) -> dict[str, list[list[str]]]:
    """Of a file with lines "word token token ..."; a word may have several."""
    spellings: dict[str, list[list[str]]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *spelling = line.split() or [""]
            if not word:
                continue
            if not spelling:
                raise ValueError(f"{path}, line {number}: a word needs a spelling, and {word!r} has none")
            spellings.setdefault(word, []).append(spelling)
    return spellings
