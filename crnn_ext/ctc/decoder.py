"""Beam search between tensors and texts."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple
from unicodedata import normalize

import torch
from torch import Tensor

from crnn_ext.ctc._arguments import check_number
from crnn_ext.ctc._indices import lengths_tensor
from crnn_ext.ctc.beam_search import BeamResult, beam_search, check_top_k
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel
from crnn_ext.text._files import Path, read_lexicon, read_tokens


class Hypothesis(NamedTuple):
    """A text that :class:`BeamSearchDecoder` found for a sample."""

    tokens: Tensor
    """(length,) int64, on the CPU: the classes, without blanks and repetitions."""
    words: list[str]
    """What stands between separators; with a lexicon its words, where it has the spelling."""
    text: str
    """The tokens' names one after the other, spaces for the separator of words."""
    score: float
    """What texts are ranked by: log-probability and what the options add to it, in nats."""
    timesteps: Tensor
    """(length,) int64, on the CPU: the frame at which each token is most probable."""
    log_prob: float
    """Log-probability of the text alone, in nats; see `log_probs` of :class:`BeamResult`."""
    token_logp: Tensor
    """(length,), on the CPU: mean log-probability of each token over the frames it was read from."""


class BeamSearchDecoder:
    """:func:`beam_search` for a network's vocabulary, with the argument names of torchaudio's `ctc_decoder`.

    It adds up the alignments of a text, as torchaudio does with `log_add=True`, and always. It pickles, also
    into new processes, and holds nothing that changes from call to call.

    Args:
        tokens: the names of the C classes in their order: a Charset, which also knows the blank, a sequence
            of str, or a file of them, one a line.
        blank_token: the name of the blank, "-" if None; a Charset has its own.
        sil_token: the token that separates words, which texts show as a space. None: " " of a Charset, "|" of
            other tokens, or " " if they have no "|". Where there is none, a text is one word.
        lexicon: the only words that may be read: a Lexicon, or a file of lines "word token token ...".
        lm: an NGramModel, or an ARPA file, plain or compressed by gzip: over the words of the lexicon if
            there is one, otherwise over tokens, of which `sil_token` may have another name there: that is
            the `separator` of :meth:`NGramModel.from_arpa`.
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
        hotwords: words and phrases to prefer: HotWords, or str in which every character is a token, a space
            the separator of words.
        hotword_weight: added for each token of a hot word; nats.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an option breaks its rule; a token is missing or there twice; a file is not of its format,
            with the number of the line.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        tokens: Charset | Sequence[str] | Path,
        *,
        blank_token: str | None = None,
        sil_token: str | None = None,
        lexicon: Lexicon | Path | None = None,
        lm: NGramModel | Path | None = None,
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
        self._names, blank = _vocabulary(tokens, blank_token)
        # As words are spelt: not with the blank.
        units = ["" if index == blank else name for index, name in enumerate(self._names)]
        usual = " " if isinstance(tokens, Charset) or "|" not in units else "|"
        if sil_token is None and usual in units:
            sil_token = usual
        if sil_token is not None and sil_token not in units:
            raise ValueError(
                f"sil_token must be one of the tokens other than the blank, and it is {sil_token!r}"
            )
        self._separator = sil_token
        separators = [] if sil_token is None else [sil_token]
        self._lexicon = _lexicon(lexicon, units, separators, unk_score)
        if isinstance(lm, str | os.PathLike):
            if self._lexicon is None:
                over = tokens if isinstance(tokens, Charset) else self._names
                lm = NGramModel.from_arpa(lm, over, separator=sil_token or " ")
            else:
                lm = NGramModel.from_arpa(lm, self._lexicon)
        if hotwords is not None and not isinstance(hotwords, HotWords):
            composed = isinstance(tokens, Charset)
            spelt = _spelt_by_characters(hotwords, units, sil_token or " ", composed=composed)
            hotwords = HotWords.from_spellings(spelt, units, separators=separators)
        if beam_size_token is not None:
            check_top_k("beam_size_token", beam_size_token, len(self._names))
        self._search = partial(
            beam_search,
            blank=blank,
            beam_size=beam_size,
            nbest=nbest,
            token_top_k=beam_size_token,
            beam_threshold=beam_threshold,
            lm=lm,
            lm_weight=lm_weight,
            lexicon=self._lexicon,
            word_score=word_score,
            hotwords=hotwords,
            hotword_weight=hotword_weight,
        )
        # No frames, but all the checks of the options.
        self._search(torch.empty(0, 1, len(self._names), device="cpu"))

    def __call__(
        self, emissions: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> list[list[Hypothesis]]:
        """The best texts of each sample, best first.

        They are fewer than `nbest` where no more are possible, and none for a sample with NaN or +inf.

        Args:
            emissions: (N, T, C), batch first; logits or log-probabilities.
            lengths: (N,), frames of each sample; all T if None.

        Raises:
            TypeError: an argument has the wrong type or dtype.
            ValueError: a shape or length breaks its rule.
        """
        if not isinstance(emissions, Tensor):
            raise TypeError(f"emissions must be a tensor, and it is {type(emissions).__name__}")
        if emissions.dim() != 3 or emissions.shape[2] != len(self._names):
            raise ValueError(
                f"emissions must be (N, T, C={len(self._names)}), and its shape is {tuple(emissions.shape)}"
            )
        if lengths is not None:
            lengths = lengths_tensor("lengths", lengths, len(emissions), batched=True)
        return self._hypotheses(self._search(emissions.transpose(0, 1), lengths))

    def stream(
        self, batches: Iterable[tuple[Tensor, Tensor | Sequence[int] | None]]
    ) -> Iterator[list[Hypothesis]]:
        """The texts of each sample of many batches, in order, each batch decoded when it is reached.

        Args:
            batches: pairs of emissions and lengths, as a call takes them.
        """
        for emissions, lengths in batches:
            yield from self(emissions, lengths)

    def idxs_to_tokens(self, idxs: Tensor) -> list[str]:
        """The names of classes."""
        return [self._names[index] for index in idxs.tolist()]

    def _hypotheses(self, result: BeamResult) -> list[list[Hypothesis]]:
        parts = [part.cpu() for part in (result.tokens, result.timesteps, result.token_logp)]
        numbers = (part.tolist() for part in (result.lengths, result.scores, result.log_probs))
        return [
            [
                self._hypothesis(score, log_prob, *(part[n, k, :length] for part in parts))
                for k, (length, score, log_prob) in enumerate(zip(*of_sample, strict=True))
                if length >= 0
            ]
            for n, of_sample in enumerate(zip(*numbers, strict=True))
        ]

    def _hypothesis(
        self, score: float, log_prob: float, tokens: Tensor, timesteps: Tensor, token_logp: Tensor
    ) -> Hypothesis:
        numbers = tokens.tolist()
        text = self._text(numbers)
        words = self._words(numbers, text)
        # Copies, since a part pickles with all of the tensor that it is of.
        tokens, timesteps, token_logp = tokens.clone(), timesteps.clone(), token_logp.clone()
        return Hypothesis(tokens, words, text, score, timesteps, log_prob, token_logp)

    def _text(self, numbers: list[int]) -> str:
        text = "".join(self._names[number] for number in numbers)
        return text if self._separator is None else text.replace(self._separator, " ")

    def _words(self, numbers: list[int], text: str) -> list[str]:
        if self._lexicon is None:
            return [word for word in text.split(" ") if word]
        separators = self._lexicon.separators
        parts = itertools.groupby(numbers, separators.__contains__)
        words = [list(part) for separates, part in parts if not separates]
        return [self._lexicon.get_word(word) or self._text(word) for word in words]


def _vocabulary(tokens: Charset | Sequence[str] | Path, blank_token: str | None) -> tuple[list[str], int]:
    """The names of the classes, and which one is the blank."""
    if isinstance(tokens, Charset):
        if blank_token is not None:
            raise ValueError(f"blank_token must be None beside a Charset, and it is {blank_token!r}")
        return [*tokens.characters[: tokens.blank], "", *tokens.characters[tokens.blank :]], tokens.blank
    blank_token = "-" if blank_token is None else blank_token
    names = read_tokens(tokens) if isinstance(tokens, str | os.PathLike) else list(tokens)
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"tokens[{index}] must be a str, and it is {type(name).__name__}")
        if not name and blank_token:
            raise ValueError(f"tokens must not be empty, but for the blank, and tokens[{index}] is")
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"tokens must be distinct, and {twice!r} is there twice")
    if blank_token not in names:
        raise ValueError(f"blank_token must be one of the tokens, and it is {blank_token!r}")
    return names, names.index(blank_token)


def _lexicon(
    lexicon: Lexicon | Path | None, units: list[str], separators: list[str], unk_score: float
) -> Lexicon | None:
    if isinstance(lexicon, str | os.PathLike):
        unknown_score = None
        if unk_score != -math.inf:
            check_number("unk_score", unk_score)
            unknown_score = unk_score
        spelt = read_lexicon(lexicon, units, separators)
        return Lexicon.from_spellings(spelt, units, separators=separators, unknown_score=unknown_score)
    if lexicon is not None and not isinstance(lexicon, Lexicon):
        raise TypeError(f"lexicon must be a Lexicon, a file or None, and it is {type(lexicon).__name__}")
    if unk_score != -math.inf:
        raise ValueError(f"unk_score must be -inf unless lexicon is a file, and it is {unk_score}")
    return lexicon


def _spelt_by_characters(
    hotwords: Iterable[str], units: list[str], space: str, *, composed: bool
) -> dict[str, list[str]]:
    """The tokens of each; `composed`: of its NFC."""
    if isinstance(hotwords, str) or not isinstance(hotwords, Iterable):
        raise TypeError(
            f"hotwords must be HotWords, an iterable of str or None, and it is {type(hotwords).__name__}"
        )
    spelt: dict[str, list[str]] = {}
    for index, word in enumerate(hotwords):
        if not isinstance(word, str):
            raise TypeError(f"hotwords[{index}] must be a str, and it is {type(word).__name__}")
        if composed:
            word = normalize("NFC", word)
        spelt[word] = [space if character == " " else character for character in word]
        missing = next((name for name in spelt[word] if name not in units), None)
        if missing is not None:
            raise ValueError(
                f"hotwords must be spelt by tokens other than the blank, and {word!r} has {missing!r}"
            )
    return spelt
