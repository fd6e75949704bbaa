"""The words that beam search may output."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from unicodedata import normalize

import numpy as np

from crnn_ext import _text
from crnn_ext._arguments import check_choice, check_number, check_type
from crnn_ext.text._tables import WordTrie
from crnn_ext.text._words import (
    check_spelling,
    encode_lexicon_spelling,
    separator_classes,
    spell,
    token_to_class,
)
from crnn_ext.text.charset import Charset, short_repr


class Lexicon:
    """Words and their spellings in token classes; built by `from_words` and `from_spellings`.

    Words are in NFC and indexed from 0 in the given order. A text is allowed if separators split it into
    words of the lexicon, or into any words if `unknown_score` is given; there may be any number of
    separators, anywhere. A lexicon is immutable and picklable.
    """

    def __init__(
        self,
        words: Sequence[str],
        trie: WordTrie,
        num_classes: int,
        separators: Sequence[int],
        unknown_score: float | None,
        blank: int | None = None,
    ) -> None:
        self._words = tuple(words)
        self._indices = {word: index for index, word in enumerate(self._words)}
        self._trie = trie
        self._num_classes = num_classes
        self._separators = tuple(separators)
        self._unknown_score = unknown_score
        self._blank = blank

    @classmethod
    def from_words(
        cls,
        words: Iterable[str],
        charset: Charset,
        *,
        separators: str = " ",
        unknown_characters: Literal["error", "skip"] = "error",
        unknown_score: float | None = None,
    ) -> "Lexicon":
        """A lexicon of words spelled by their characters.

        Args:
            words: one or more words. They are normalized to NFC; duplicates are ignored.
            charset: the characters of the network's classes.
            separators: the characters between words. Those that the charset lacks are ignored; if it has none
                of them, a text is one word.
            unknown_characters: for words with characters that the charset lacks: "error" raises, "skip" omits
                the word, but raises if no word is left.
            unknown_score: added for each word that is not in the lexicon, in nats; None forbids them.

        Raises:
            ValueError: if there are no words, a word is empty or has a separator or an unknown character, or
                an option is invalid.
            TypeError: if an argument has the wrong type.
        """
        check_choice("from_words: unknown_characters", unknown_characters, ("error", "skip"))
        score = _checked_score("from_words", unknown_score)
        spellings = spell("from_words", words, charset, unknown_characters)
        if not spellings.words:
            raise ValueError("from_words: words must not be empty")
        classes = separator_classes("from_words", separators, charset)
        separated = np.flatnonzero(np.isin(spellings.tokens, classes))
        if separated.size:
            word = spellings.words[spellings.word_of_token()[separated[0]]]
            raise ValueError(
                f"from_words: words must not contain separators ({separators!r}), got {short_repr(word)}"
            )
        indices = np.arange(len(spellings.words))
        trie = WordTrie.from_native(_text.word_trie(spellings.tokens, spellings.lengths, indices, classes))
        return cls(spellings.words, trie, charset.num_classes, classes, score, charset.blank)

    @classmethod
    def from_spellings(
        cls,
        spellings: Mapping[str, Iterable[Sequence[str]]],
        tokens: Sequence[str],
        *,
        separators: Sequence[str] = (),
        unknown_score: float | None = None,
    ) -> "Lexicon":
        """A lexicon of words with explicit spellings, as in files of lines "word token token ...".

        Args:
            spellings: for each word, one or more sequences of tokens. Trailing separators, as in files for
                flashlight and torchaudio, are removed. If several words share a spelling, such as "two" and
                "too" in phonemes, the first of them is decoded.
            tokens: the names of the network's classes.
            separators: the tokens between words.
            unknown_score: added for each word that is not in the lexicon, in nats; None forbids them.

        Raises:
            ValueError: if there are no words, a word has no spellings, tokens are not distinct, a separator
                or a token of a spelling is not among them, a spelling is empty or has a separator before its
                end, or two words are equal in NFC.
            TypeError: if an argument has the wrong type.
        """
        score = _checked_score("from_spellings", unknown_score)
        check_type("from_spellings: spellings", spellings, Mapping, "a mapping")
        classes = token_to_class(tokens, separators)
        if not spellings:
            raise ValueError("from_spellings: spellings must not be empty")
        words: dict[str, None] = {}
        flat: list[int] = []
        lengths: list[int] = []
        indices: list[int] = []
        for word, alternatives in spellings.items():
            composed = normalize("NFC", word)
            if composed in words:
                raise ValueError(f"from_spellings: words must be distinct in NFC, got {word!r} twice")
            count_before = len(lengths)
            for alternative in alternatives:
                check_spelling(word, alternative)
                spelling = encode_lexicon_spelling("from_spellings", word, alternative, classes, separators)
                flat += spelling
                lengths.append(len(spelling))
                indices.append(len(words))
            if len(lengths) == count_before:
                raise ValueError(
                    f"from_spellings: each word must have at least one spelling, got none for {word!r}"
                )
            words[composed] = None
        separator_list = sorted({classes[name] for name in separators})
        arrays = [np.array(part, np.int64) for part in (flat, lengths, indices)]
        trie = WordTrie.from_native(_text.word_trie(arrays[0], arrays[1], arrays[2], separator_list))
        return cls(list(words), trie, len(tokens), separator_list, score)

    @property
    def words(self) -> tuple[str, ...]:
        """The words by index."""
        return self._words

    @property
    def trie(self) -> WordTrie:
        """The spellings, as tables for the decoders."""
        return self._trie

    @property
    def num_classes(self) -> int:
        """C of the logits."""
        return self._num_classes

    @property
    def blank(self) -> int | None:
        """The blank of the charset; None for a lexicon built from spellings."""
        return self._blank

    @property
    def separators(self) -> tuple[int, ...]:
        """The classes that separate words."""
        return self._separators

    @property
    def unknown_score(self) -> float | None:
        """The score of a word that is not in the lexicon, in nats; None: such words are forbidden."""
        return self._unknown_score

    def get_index(self, word: str) -> int:
        """The index of a word; `len(lexicon)` for a word that is not in the lexicon."""
        return self._indices.get(normalize("NFC", word), len(self._words))

    def get_word(self, tokens: Sequence[int]) -> str | None:
        """The first word with this spelling; None if there is none."""
        trie = self._trie
        first_edge, edge_symbol = trie.first_edge.numpy(), trie.edge_symbol.numpy()
        edge_target = trie.edge_target.numpy()
        state = 0
        for token in tokens:
            edges = slice(first_edge[state], first_edge[state + 1])
            edge = edges.start + np.searchsorted(edge_symbol[edges], token)
            if edge == edges.stop or edge_symbol[edge] != token or token in self._separators:
                return None
            state = edge_target[edge]
        index = int(trie.word_of_state[state])
        return None if index < 0 else self._words[index]

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and normalize("NFC", word) in self._indices

    def __repr__(self) -> str:
        return (
            f"Lexicon({len(self)} words, num_classes={self._num_classes}, "
            f"unknown_score={self._unknown_score})"
        )


def _checked_score(operation: str, score: float | None) -> float | None:
    check_type(f"{operation}: unknown_score", score, (int, float, type(None)), "a number or None")
    if score is None:
        return None
    check_number(f"{operation}: unknown_score", score)
    return float(score)
