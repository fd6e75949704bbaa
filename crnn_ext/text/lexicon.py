"""The words that decoding may read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from unicodedata import normalize

import numpy as np

from crnn_ext import _text
from crnn_ext.text._tables import WordTrie
from crnn_ext.text._words import (
    check_spelling,
    encode_spelling_without_separators,
    separator_classes,
    shortened,
    spell,
    token_to_class,
)
from crnn_ext.text.charset import Charset


class Lexicon:
    """Words with their spellings in token classes; `from_words` and `from_spellings` make one.

    Words are token_to_class from 0 in the order in which they were given; all in NFC. A text is allowed if
    separators split it into words of the lexicon, in any number and anywhere, or into any words if
    `unknown_score` is given. A lexicon never changes, and it pickles.
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
        self._numbers = {word: number for number, word in enumerate(self._words)}
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
        """The lexicon of words that are spelt by their characters.

        Args:
            words: one or more. They are brought to NFC; one that comes twice is one word.
            charset: the characters of the network's classes.
            separators: the characters that stand between words. Those that the charset lacks separate
                nothing: if it has none of them, a text is one word.
            unknown_characters: what becomes of a word with a character that the charset lacks: "error"
                raises, "skip" leaves the word out, unless that leaves none.
            unknown_score: added, in nats, for each word that is not in the lexicon; None forbids them.

        Raises:
            ValueError: there are no words; one is empty, has a separator in it or an unknown character; an
                option or unknown_score breaks its rule.
            TypeError: an argument has the wrong type.
        """
        if unknown_characters not in ("error", "skip"):
            raise ValueError(
                f"from_words: unknown_characters must be 'error' or 'skip', and it is {unknown_characters!r}"
            )
        score = _checked_score("from_words", unknown_score)
        spellings = spell("from_words", words, charset, unknown_characters)
        if not spellings.words:
            raise ValueError("from_words: words must be one or more, and there are none")
        classes = separator_classes("from_words", separators, charset)
        separated = np.flatnonzero(np.isin(spellings.tokens, classes))
        if separated.size:
            word = spellings.words[spellings.word_of_token()[separated[0]]]
            raise ValueError(
                f"from_words: words must hold no separators ({separators!r}), and {shortened.repr(word)} does"
            )
        numbers = np.arange(len(spellings.words))
        trie = WordTrie.from_native(_text.word_trie(spellings.tokens, spellings.lengths, numbers, classes))
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
        """The lexicon of words with spellings of their own, as in files of lines "word token token ...".

        Args:
            spellings: for each of one or more words, one or several sequences of tokens. Separators at the
                end of one, as files for flashlight and torchaudio have them, are left out. Of words that are
                spelt alike, as "two" and "too" may be in phonemes, a text is read as the first: it does not
                tell them apart.
            tokens: the names of the network's classes.
            separators: those among the tokens that stand between words.
            unknown_score: added, in nats, for each word that is not in the lexicon; None forbids them.

        Raises:
            ValueError: there are no words, or no spellings of one; tokens are not distinct; a separator or a
                token of a spelling is not among them; a spelling is empty or has a separator before its end;
                two words are equal in NFC.
            TypeError: an argument has the wrong type.
        """
        score = _checked_score("from_spellings", unknown_score)
        if not isinstance(spellings, Mapping):
            raise TypeError(
                f"from_spellings: spellings must be a mapping, and it is {type(spellings).__name__}"
            )
        classes = token_to_class(tokens, separators)
        if not spellings:
            raise ValueError("from_spellings: spellings must be of one or more words, and there are none")
        words: dict[str, None] = {}
        flat: list[int] = []
        lengths: list[int] = []
        numbers: list[int] = []
        for word, alternatives in spellings.items():
            composed = normalize("NFC", word)
            if composed in words:
                raise ValueError(
                    f"from_spellings: words must be distinct in NFC, and {word!r} is there twice"
                )
            before = len(lengths)
            for alternative in alternatives:
                check_spelling(word, alternative)
                spelling = encode_spelling_without_separators(
                    "from_spellings", word, alternative, classes, separators
                )
                flat += spelling
                lengths.append(len(spelling))
                numbers.append(len(words))
            if len(lengths) == before:
                raise ValueError(
                    f"from_spellings: spellings must have one or more for each word, and {word!r} has none"
                )
            words[composed] = None
        separating = sorted({classes[name] for name in separators})
        arrays = [np.array(part, np.int64) for part in (flat, lengths, numbers)]
        trie = WordTrie.from_native(_text.word_trie(arrays[0], arrays[1], arrays[2], separating))
        return cls(list(words), trie, len(tokens), separating, score)

    @property
    def words(self) -> tuple[str, ...]:
        """The words by number."""
        return self._words

    @property
    def trie(self) -> WordTrie:
        """The spellings, as tables for the decoders."""
        return self._trie

    @property
    def num_classes(self) -> int:
        """C of the logits that the lexicon is for."""
        return self._num_classes

    @property
    def blank(self) -> int | None:
        """The blank of the charset that the words are spelt in; None where that is not known."""
        return self._blank

    @property
    def separators(self) -> tuple[int, ...]:
        """The classes that separate words."""
        return self._separators

    @property
    def unknown_score(self) -> float | None:
        """What a word that is not in the lexicon adds to the score, in nats; None: it may not be read."""
        return self._unknown_score

    def get_index(self, word: str) -> int:
        """The number of a word; of one that the lexicon does not have, `len(lexicon)`."""
        return self._numbers.get(normalize("NFC", word), len(self._words))

    def get_word(self, tokens: Sequence[int]) -> str | None:
        """The word that is spelt by these classes, of several the first; None if there is none."""
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
        number = int(trie.word_of_state[state])
        return None if number < 0 else self._words[number]

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and normalize("NFC", word) in self._numbers

    def __repr__(self) -> str:
        return (
            f"Lexicon({len(self)} words, num_classes={self._num_classes}, "
            f"unknown_score={self._unknown_score})"
        )


def _checked_score(operation: str, score: float | None) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise TypeError(
            f"{operation}: unknown_score must be a float or None, and it is {type(score).__name__}"
        )
    if not math.isfinite(score):
        raise ValueError(f"{operation}: unknown_score must be finite, and it is {score}")
    return float(score)
