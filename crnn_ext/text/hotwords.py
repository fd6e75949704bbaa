"""Words that beam search prefers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from crnn_ext import _text
from crnn_ext._arguments import check_type
from crnn_ext.text._tables import Automaton
from crnn_ext.text._words import (
    Spellings,
    check_spelling,
    encode_spelling,
    separator_classes,
    spell,
    token_to_class,
)
from crnn_ext.text.charset import Charset, short_repr


class HotWords:
    """Words and phrases that raise the score of texts with them; built by `from_words` and `from_spellings`.

    An occurrence scores one unit per token of the word, without separators. Occurrences may overlap: with the
    hot words "new york" and "york", the text "new york" scores 7 + 4. The tokens of a partly matched word
    score too; they are subtracted again if the match fails. Hot words are immutable and picklable.
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
        """Hot words spelled by their characters.

        Args:
            words: words, or phrases of words with single separators between them. They are normalized to
                NFC; duplicates are ignored.
            charset: the characters of the network's classes.
            separators: the characters between words; all are equivalent. Hot words match whole words only,
                with a separator or an end of the text on both sides. If the charset has none of the
                separators, they match anywhere in a text.

        Raises:
            ValueError: if a word is empty, has a character that the charset lacks, or has separators at an
                end or side by side.
            TypeError: if an argument has the wrong type.
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
        """Hot words with explicit spellings, for networks whose classes are not characters.

        Args:
            spellings: for each word or phrase, its sequence of tokens.
            tokens: the names of the network's classes.
            separators: the tokens between words.

        Raises:
            ValueError: if tokens are not distinct, a separator or a token of a spelling is not among them, or
                a spelling is empty or has separators at an end or side by side.
            TypeError: if an argument has the wrong type.
        """
        check_type("from_spellings: spellings", spellings, Mapping, "a mapping")
        classes = token_to_class(tokens, separators)
        encoded = []
        for word, names in spellings.items():
            check_spelling(word, names)
            encoded.append(encode_spelling("from_spellings", word, names, classes))
        flat = np.array([token for spelling in encoded for token in spelling], np.int64)
        lengths = np.array([len(spelling) for spelling in encoded], np.int64)
        separator_list = sorted({classes[name] for name in separators})
        all_spellings = Spellings(list(spellings), flat, lengths)
        _check_separators("from_spellings", all_spellings, separator_list, separators)
        return cls._of(all_spellings, separator_list, len(tokens))

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
        """The automaton over token classes that scores texts, with a score of 1 per token."""
        return self._automaton

    @property
    def num_classes(self) -> int:
        """C of the logits."""
        return self._num_classes

    @property
    def blank(self) -> int | None:
        """The blank of the charset; None for hot words built from spellings."""
        return self._blank

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        return f"HotWords({len(self)} words, num_classes={self._num_classes})"


def _check_separators(
    operation: str, spellings: Spellings, classes: list[int], separators: Sequence[str]
) -> None:
    """Checks that each separator has other tokens of the same word on both sides."""
    is_separator = np.isin(spellings.tokens, classes)
    word = spellings.word_of_token()
    is_first = np.diff(word, prepend=-1) > 0
    is_last = np.diff(word, append=len(spellings.words)) > 0
    misplaced = np.flatnonzero(is_separator & (is_first | is_last | np.roll(is_separator, 1)))
    if misplaced.size:
        raise ValueError(
            f"{operation}: phrases must have single separators ({separators!r}) between words, got "
            f"{short_repr(spellings.words[word[misplaced[0]]])}"
        )
