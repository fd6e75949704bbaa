"""Beam-search decoder from emissions to texts."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple
from unicodedata import normalize

import torch
from torch import Tensor

from crnn_ext._arguments import check_each_str, check_number, check_type
from crnn_ext.ctc._indices import lengths_tensor
from crnn_ext.ctc._inputs import InputType
from crnn_ext.ctc.beam_search import BeamResult, beam_search, check_top_k
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel
from crnn_ext.text._files import Path, read_lexicon, read_tokens


class Hypothesis(NamedTuple):
    """A text found by `BeamSearchDecoder`."""

    tokens: Tensor
    """(length,) int64, on the CPU: the classes, without blanks and repeats."""
    words: list[str]
    """The text split at separators; spellings that are in the lexicon are replaced by their words."""
    text: str
    """The names of the tokens, joined; the word separator becomes a space."""
    score: float
    """The ranking score: log_prob plus the scores of language model, lexicon and hot words, in nats."""
    timesteps: Tensor
    """(length,) int64, on the CPU: the frame at which each token is most probable."""
    log_prob: float
    """Log-probability of the text, in nats; see `log_probs` of `BeamResult`."""
    token_logp: Tensor
    """(length,), on the CPU: mean log-probability of each token over its frames."""
    starts: Tensor
    """(length,) int64, on the CPU: the first frame of each token."""
    ends: Tensor
    """(length,) int64, on the CPU: one past the last frame of each token."""


class BeamSearchDecoder:
    """`beam_search` for a given vocabulary, with the argument names of torchaudio's `ctc_decoder`.

    The texts and numbers are those of `beam_search` with the same options. The decoder always sums over
    the alignments of a text, like torchaudio with `log_add=True`. It can be pickled, also into new processes,
    and keeps no state between calls.

    Args:
        tokens: the names of the C classes in order: a Charset (which also gives the blank), a sequence of
            str, or the path of a file with one name per line.
        blank_token: the name of the blank; default: "-". Must be None for a Charset.
        sil_token: the token that separates words, shown as a space in texts. Default: " " for a Charset;
            otherwise "|", or " " if there is no "|". Without a separator, a text is one word.
        lexicon: the allowed words: a Lexicon, or the path of a file of lines "word token token ...".
        lm: an NGramModel, or the path of an ARPA file, plain or gzipped: over the words of the lexicon if
            there is one, otherwise over tokens. `sil_token` is the `separator` of
            `NGramModel.from_arpa`, so it may have another name in the file.
        nbest: number of texts returned, 1 to beam_size.
        beam_size: number of prefixes kept after each frame, 1 to 1024.
        beam_size_token: extend prefixes only with the k most probable non-blank tokens of each frame; at most
            1024, unless at least C - 1. None: all tokens.
        beam_threshold: drop prefixes whose score is more than this below the best one; nats. None: no limit.
        token_min_logp: extend prefixes only with tokens of at least this log-probability; nats, at most 0.
            None: no limit.
        lm_weight: factor on the log-probabilities of the model; at least 0.
        token_score: added for each token; nats.
        word_score: added for each word of the lexicon; nats.
        unk_score: added for each word that is not in the lexicon; -inf forbids them. Only for a lexicon given
            as a file; a Lexicon has its own `unknown_score`.
        hotwords: preferred words and phrases: HotWords, or an iterable of str in which each character is a
            token and a space is the word separator.
        hotword_weight: added for each token of a hot word; nats, at least 0.
        rescore: recompute log-probabilities over all alignments of each text, including those that the search
            dropped, and rank the texts by the new scores.
        input_type: "logits", or "log_probs": used as they are, not normalized.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an option is invalid, a token is missing or occurs twice, or a file is malformed (the
            message gives the line number).
        OSError: if a file cannot be read.
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
        token_min_logp: float | None = None,
        lm_weight: float = 0.5,
        token_score: float = 0.0,
        word_score: float = 0.0,
        unk_score: float = -math.inf,
        hotwords: HotWords | Iterable[str] | None = None,
        hotword_weight: float = 1.0,
        rescore: bool = False,
        input_type: InputType = "logits",
    ) -> None:
        self._names, blank = _vocabulary(tokens, blank_token)
        # The tokens that spell words: all but the blank.
        units = ["" if index == blank else name for index, name in enumerate(self._names)]
        default = " " if isinstance(tokens, Charset) or "|" not in units else "|"
        if sil_token is None and default in units:
            sil_token = default
        if sil_token is not None and sil_token not in units:
            raise ValueError(f"sil_token must be one of the tokens except the blank, got {sil_token!r}")
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
            spellings = _spell_by_characters(hotwords, units, sil_token or " ", composed=composed)
            hotwords = HotWords.from_spellings(spellings, units, separators=separators)
        self._hotwords = hotwords
        if beam_size_token is not None:
            check_top_k("beam_size_token", beam_size_token, len(self._names))
        self._search = partial(
            beam_search,
            blank=blank,
            beam_size=beam_size,
            nbest=nbest,
            token_top_k=beam_size_token,
            token_min_logp=token_min_logp,
            beam_threshold=beam_threshold,
            lm=lm,
            lm_weight=lm_weight,
            token_score=token_score,
            word_score=word_score,
            hotword_weight=hotword_weight,
            rescore=rescore,
            input_type=input_type,
        )
        # Checks all options.
        no_frames = torch.empty(0, 1, len(self._names), device="cpu")
        self._search(no_frames, lexicon=self._lexicon, hotwords=self._hotwords)

    def __call__(
        self,
        emissions: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        lexicon: Sequence[Lexicon | None] | None = None,
        hotwords: Sequence[HotWords | None] | None = None,
    ) -> list[list[Hypothesis]]:
        """The best texts of each sample, best first.

        A sample has fewer than `nbest` texts if no more exist, and none if it has NaN or +inf.

        Args:
            emissions: (N, T, C), batch first; float16, bfloat16, float32 or float64, any strides and device.
                With `input_type="logits"`, logits or log-probabilities.
            lengths: (N,), frames of each sample; default: T.
            lexicon: a Lexicon or None for each of the N samples. Default: that of the decoder.
            hotwords: HotWords or None for each of the N samples. Default: those of the decoder.

        Raises:
            TypeError: if an argument has the wrong type or dtype.
            ValueError: if a shape, length, lexicon or hot word is invalid.
        """
        check_type("emissions", emissions, Tensor, "a tensor")
        if emissions.dim() != 3 or emissions.shape[2] != len(self._names):
            raise ValueError(
                f"emissions must be (N, T, C={len(self._names)}), got shape {tuple(emissions.shape)}"
            )
        if lengths is not None:
            lengths = lengths_tensor("lengths", lengths, len(emissions), batched=True)
        for name, value in (("lexicon", lexicon), ("hotwords", hotwords)):
            check_type(name, value, (Sequence, type(None)), "a sequence or None")
        lexicons = [self._lexicon] * len(emissions) if lexicon is None else lexicon
        result = self._search(
            emissions.transpose(0, 1),
            lengths,
            lexicon=lexicons,
            hotwords=self._hotwords if hotwords is None else hotwords,
        )
        return self._hypotheses(result, lexicons)

    def stream(
        self, batches: Iterable[tuple[Tensor, Tensor | Sequence[int] | None]]
    ) -> Iterator[list[Hypothesis]]:
        """Decodes batches lazily, in order; yields the texts of one sample at a time.

        Args:
            batches: pairs (emissions, lengths), the arguments of a call.
        """
        for emissions, lengths in batches:
            yield from self(emissions, lengths)

    def idxs_to_tokens(self, idxs: Tensor) -> list[str]:
        """The names of classes."""
        return [self._names[index] for index in idxs.tolist()]

    def _hypotheses(self, result: BeamResult, lexicons: Sequence[Lexicon | None]) -> list[list[Hypothesis]]:
        names = ("tokens", "timesteps", "token_logp", "starts", "ends")
        parts = {name: getattr(result, name).cpu() for name in names}
        numbers = (part.tolist() for part in (result.lengths, result.scores, result.log_probs))
        found: list[list[Hypothesis]] = []
        for n, (lexicon, *sample) in enumerate(zip(lexicons, *numbers, strict=True)):
            found.append([])
            for k, (length, score, log_prob) in enumerate(zip(*sample, strict=True)):
                if length >= 0:
                    # Copies: a view would be pickled with the whole tensor that it belongs to.
                    tensors = {name: part[n, k, :length].clone() for name, part in parts.items()}
                    found[n].append(self._hypothesis(score, log_prob, lexicon, tensors))
        return found

    def _hypothesis(
        self, score: float, log_prob: float, lexicon: Lexicon | None, tensors: dict[str, Tensor]
    ) -> Hypothesis:
        classes = tensors["tokens"].tolist()
        text = self._text(classes)
        words = self._words(classes, text, lexicon)
        return Hypothesis(words=words, text=text, score=score, log_prob=log_prob, **tensors)

    def _text(self, classes: list[int]) -> str:
        text = "".join(self._names[index] for index in classes)
        return text if self._separator is None else text.replace(self._separator, " ")

    def _words(self, classes: list[int], text: str, lexicon: Lexicon | None) -> list[str]:
        if lexicon is None:
            return [word for word in text.split(" ") if word]
        parts = itertools.groupby(classes, lexicon.separators.__contains__)
        words = [list(part) for is_separator, part in parts if not is_separator]
        return [lexicon.get_word(word) or self._text(word) for word in words]


def _vocabulary(tokens: Charset | Sequence[str] | Path, blank_token: str | None) -> tuple[list[str], int]:
    """The names of the classes, and the class of the blank."""
    if isinstance(tokens, Charset):
        if blank_token is not None:
            raise ValueError(f"blank_token must be None for a Charset, got {blank_token!r}")
        return [*tokens.characters[: tokens.blank], "", *tokens.characters[tokens.blank :]], tokens.blank
    blank_token = "-" if blank_token is None else blank_token
    names = read_tokens(tokens) if isinstance(tokens, str | os.PathLike) else list(tokens)
    check_each_str("tokens", names)
    for index, name in enumerate(names):
        if not name and blank_token:
            raise ValueError(f"tokens[{index}] must not be empty: only the blank may be")
    if len(set(names)) != len(names):
        repeated = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"tokens must be distinct, got {repeated!r} twice")
    if blank_token not in names:
        raise ValueError(f"blank_token must be one of the tokens, got {blank_token!r}")
    return names, names.index(blank_token)


def _lexicon(
    lexicon: Lexicon | Path | None, units: list[str], separators: list[str], unk_score: float
) -> Lexicon | None:
    if isinstance(lexicon, str | os.PathLike):
        unknown_score = None
        if unk_score != -math.inf:
            check_number("unk_score", unk_score)
            unknown_score = unk_score
        spellings = read_lexicon(lexicon, units, separators)
        return Lexicon.from_spellings(spellings, units, separators=separators, unknown_score=unknown_score)
    check_type("lexicon", lexicon, (Lexicon, type(None)), "a Lexicon, a path or None")
    if unk_score != -math.inf:
        raise ValueError(f"unk_score must be -inf unless lexicon is a path, got {unk_score}")
    return lexicon


def _spell_by_characters(
    hotwords: Iterable[str], units: list[str], space: str, *, composed: bool
) -> dict[str, list[str]]:
    """The tokens of each hot word; `composed` normalizes the words to NFC first."""
    if isinstance(hotwords, str) or not isinstance(hotwords, Iterable):
        raise TypeError(
            f"hotwords must be HotWords, an iterable of str or None, got {type(hotwords).__name__}"
        )
    spellings: dict[str, list[str]] = {}
    hotwords = list(hotwords)
    check_each_str("hotwords", hotwords)
    for word in hotwords:
        if composed:
            word = normalize("NFC", word)
        spellings[word] = [space if character == " " else character for character in word]
        missing = next((name for name in spellings[word] if name not in units), None)
        if missing is not None:
            raise ValueError(f"hotwords must consist of tokens except the blank, got {missing!r} in {word!r}")
    return spellings
