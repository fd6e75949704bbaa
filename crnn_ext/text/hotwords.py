"""Words that decoding prefers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from crnn_ext import _text
from crnn_ext.text._tables import Automaton
from crnn_ext.text._words import (
    Spellings,
    check_spelling,
    encode_spelling,
    separator_classes,
    shortened,
    spell,
    token_to_class,
)
from crnn_ext.text.charset import Charset


class HotWords:
    """Words and phrases whose occurrences raise a text's score; `from_words` and `from_spellings` make them.

    Each occurrence counts for as many units as the word has tokens, without separators, and occurrences may
    overlap: with the hot words "new york" and "york", the text "new york" counts for 7 and 4. While a word is
    being spelt, its tokens so far count too, and where the spelling breaks off they are taken back.
    Hot words never change, and they pickle.
    """

    def __init__(
        self, words: Iterable[str], automaton: Automaton, num_classes: int, blank: int | None = None
    ) -> None:
        self._words = tuple(words)
        self._blank = blank
        self._automaton = automaton
        self._num_classes = num_classes

    @classmethod
    def from_words(cls, words: Iterable[str], charset: Charset, *, separators: str = " ") -> "HotWords":
        """The hot words that are spelt by their characters.

        Args:
            words: words, or phrases of words with one separator between two of them. They are brought to
                NFC; one that comes twice is one word.
            charset: the characters of the network's classes.
            separators: the characters that stand between words. They are all alike here: one stands for any
                other. Hot words are found as whole words, with a separator or an end of the text on both
                sides. If the charset has none of the separators, they are found anywhere in a text.

        Raises:
            ValueError: a word is empty, has a character that the charset lacks, or separators at an end or
                side by side.
            TypeError: an argument has the wrong type.
        """
        spellings = spell("from_words", words, charset)
        classes = separator_classes("from_words", separators, charset)
        _check_separators("from_words", spellings, classes, separators)
        return cls._of(spellings, classes, charset.num_classes, charset.blank)

    @classmethod
    def from_spellings(
        cls,
        spellings: Mapping[str, Sequence[str]],
        tokens: Sequence[str],
        *,
        separators: Sequence[str] = (),
    ) -> "HotWords":
        """Hot words with spellings of their own, for networks whose classes are not characters.

        Args:
            spellings: for each word or phrase, a sequence of tokens.
            tokens: the names of the network's classes.
            separators: those among the tokens that stand between words.

        Raises:
            ValueError: tokens are not distinct; a separator or a token of a spelling is not among them; a
                spelling is empty or has separators at an end or side by side.
            TypeError: an argument has the wrong type.
        """
        if not isinstance(spellings, Mapping):
            raise TypeError(
                f"from_spellings: spellings must be a mapping, and it is {type(spellings).__name__}"
            )
        classes = token_to_class(tokens, separators)
        spelt = []
        for word, names in spellings.items():
            check_spelling(word, names)
            spelt.append(encode_spelling("from_spellings", word, names, classes))
        flat = np.array([token for spelling in spelt for token in spelling], np.int64)
        lengths = np.array([len(spelling) for spelling in spelt], np.int64)
        separating = sorted({classes[name] for name in separators})
        spelt_words = Spellings(list(spellings), flat, lengths)
        _check_separators("from_spellings", spelt_words, separating, separators)
        return cls._of(spelt_words, separating, len(tokens))

    @classmethod
    def _of(
        cls, spellings: Spellings, separators: list[int], num_classes: int, blank: int | None = None
    ) -> "HotWords":
        tables = _text.hotword_automaton(spellings.tokens, spellings.lengths, separators)
        return cls(spellings.words, Automaton.from_native(tables), num_classes, blank)

    @property
    def words(self) -> tuple[str, ...]:
        """The words and phrases, in NFC."""
        return self._words

    @property
    def automaton(self) -> Automaton:
        """What weighs texts, over token classes, for a bonus of 1 for each token."""
        return self._automaton

    @property
    def num_classes(self) -> int:
        """C of the logits that the hot words are for."""
        return self._num_classes

    @property
    def blank(self) -> int | None:
        """The blank of the charset that the words are spelt in; None where that is not known."""
        return self._blank

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        return f"HotWords({len(self)} words, num_classes={self._num_classes})"


def _check_separators(
    operation: str, spellings: Spellings, classes: list[int], separators: Sequence[str]
) -> None:
    """Each separator has a token of the same word before and behind it that is none."""
    separates = np.isin(spellings.tokens, classes)
    word = spellings.word_of_token()
    begins = np.diff(word, prepend=-1) > 0
    ends = np.diff(word, append=len(spellings.words)) > 0
    misplaced = np.flatnonzero(separates & (begins | ends | np.roll(separates, 1)))
    if misplaced.size:
        raise ValueError(
            f"{operation}: separators ({separators!r}) must stand one by one between the words of a phrase, "
            f"and in {shortened.repr(spellings.words[word[misplaced[0]]])} they do not"
        )
