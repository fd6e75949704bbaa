"""Words on their way to token classes, for lexicons and hot words."""

from collections.abc import Iterable, Mapping, Sequence
from reprlib import Repr
from typing import Literal, NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from crnn_ext.text.charset import Charset

# Quotes words in messages without the middle of long ones.
shortened = Repr()
shortened.maxstring = 72


class Spellings(NamedTuple):
    """Words, each spelt in token classes."""

    words: list[str]
    """Distinct, in NFC."""
    tokens: npt.NDArray[np.int64]
    """The classes of all words, one word after the other."""
    lengths: npt.NDArray[np.int64]
    """(words,): how many classes each has."""

    def word_of_token(self) -> npt.NDArray[np.int64]:
        """(tokens,): the index of the word that each is a part of."""
        return np.repeat(np.arange(len(self.words)), self.lengths)


def spell(
    operation: str,
    words: Iterable[str],
    charset: Charset,
    unknown_characters: Literal["error", "skip"] = "error",
) -> Spellings:
    """The spellings of words by their characters; of equal ones, one.

    With "skip" those with characters that the charset lacks are left out, unless that leaves none.
    """
    if not isinstance(charset, Charset):
        raise TypeError(f"{operation}: charset must be a Charset, and it is {type(charset).__name__}")
    if isinstance(words, str | Mapping) or not isinstance(words, Iterable):
        raise TypeError(f"{operation}: words must be an iterable of str, and it is {type(words).__name__}")
    distinct: dict[str, None] = {}
    for index, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"{operation}: words[{index}] must be a str, and it is {type(word).__name__}")
        if not word:
            raise ValueError(f"{operation}: words must not be empty, and words[{index}] is")
        distinct[normalize("NFC", word)] = None
    composed = list(distinct)
    tokens, lengths = (part.numpy() for part in charset.encode(composed, unknown="skip", padded=False))
    is_spelt = lengths == np.fromiter(map(len, composed), np.int64, len(composed))
    if not is_spelt.all():
        if unknown_characters == "error" or not is_spelt.any():
            raise _unknown_characters(operation, composed, is_spelt, charset)
        tokens = tokens[np.repeat(is_spelt, lengths)]
        lengths = lengths[is_spelt]
        composed = [word for word, spelt in zip(composed, is_spelt, strict=True) if spelt]
    return Spellings(composed, tokens, lengths)


def separator_classes(operation: str, separators: str, charset: Charset) -> list[int]:
    """The classes of the separators that the charset has."""
    if not isinstance(separators, str):
        raise TypeError(f"{operation}: separators must be a str, and it is {type(separators).__name__}")
    classes, _ = charset.encode(list(separators), unknown="skip", padded=False)
    return sorted(set(classes.tolist()))


def token_to_class(tokens: Sequence[str], separators: Sequence[str]) -> dict[str, int]:
    """The class of each token, by name; separators are among them."""
    classes = {name: index for index, name in enumerate(tokens)}
    if len(classes) != len(tokens):
        twice = next(name for index, name in enumerate(tokens) if classes[name] != index)
        raise ValueError(f"from_spellings: tokens must be distinct, and {twice!r} stands there twice")
    for separator in separators:
        if separator not in classes:
            raise ValueError(f"from_spellings: separators must be among tokens, and {separator!r} is not")
    return classes


def check_spelling(word: str, names: Sequence[str]) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(
            f"from_spellings: spellings must be sequences of tokens, and one of {word!r} is "
            f"{type(names).__name__}"
        )


def encode_spelling(where: str, word: str, names: Sequence[str], classes: Mapping[str, int]) -> list[int]:
    """The classes of the tokens that spell a word; errors begin with `where` it stands."""
    for name in names:
        if name not in classes:
            raise ValueError(f"{where}: spellings must be of tokens, and that of {word!r} has {name!r}")
    if not names:
        raise ValueError(f"{where}: spellings must not be empty, and one of {word!r} is")
    return [classes[name] for name in names]


def encode_spelling_without_separators(
    where: str, word: str, names: Sequence[str], classes: Mapping[str, int], separators: Sequence[str]
) -> list[int]:
    """As `encode_spelling`, without separators at the end."""
    end = len(names)
    while end and names[end - 1] in separators:
        end -= 1
    for name in names[:end]:
        if name in separators:
            raise ValueError(
                f"{where}: spellings must hold no separators before the end, and that of "
                f"{word!r} has {name!r}"
            )
    return encode_spelling(where, word, names[:end], classes)


def _unknown_characters(
    operation: str, words: list[str], is_spelt: npt.NDArray[np.bool_], charset: Charset
) -> ValueError:
    misspelt = [words[index] for index in np.flatnonzero(~is_spelt)]
    missing = charset.count_unknown(misspelt)
    named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character, _ in missing.most_common(8))
    return ValueError(
        f"{operation}: words must hold characters of the charset only, and {len(misspelt)} of {len(words)} "
        f"do not, such as {shortened.repr(misspelt[0])}; the charset lacks {named}"
        f"{' and others' if len(missing) > 8 else ''}"
    )
