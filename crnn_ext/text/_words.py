"""Converts words to token classes, for lexicons and hot words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from crnn_ext._arguments import check_each_str, check_str, check_type
from crnn_ext.text.charset import Charset, short_repr


class Spellings(NamedTuple):
    """Words, each spelled in token classes."""

    words: list[str]
    """Distinct, in NFC."""
    tokens: npt.NDArray[np.int64]
    """The classes of all words, concatenated."""
    lengths: npt.NDArray[np.int64]
    """(words,): the number of classes of each word."""

    def word_of_token(self) -> npt.NDArray[np.int64]:
        """(tokens,): the index of the word that each class belongs to."""
        return np.repeat(np.arange(len(self.words)), self.lengths)


def spell(
    operation: str,
    words: Iterable[str],
    charset: Charset,
    unknown_characters: Literal["error", "skip"] = "error",
) -> Spellings:
    """The words spelled by their characters, without duplicates.

    "skip" omits words with characters that the charset lacks, but raises if no word is left.
    """
    check_type(f"{operation}: charset", charset, Charset, "a Charset")
    if isinstance(words, str | Mapping) or not isinstance(words, Iterable):
        raise TypeError(f"{operation}: words must be an iterable of str, got {type(words).__name__}")
    words = list(words)
    check_each_str(f"{operation}: words", words)
    distinct: dict[str, None] = {}
    for index, word in enumerate(words):
        if not word:
            raise ValueError(f"{operation}: words[{index}] must not be empty")
        distinct[normalize("NFC", word)] = None
    composed = list(distinct)
    tokens, lengths = (part.numpy() for part in charset.encode(composed, unknown="skip", padded=False))
    is_encodable = lengths == np.fromiter(map(len, composed), np.int64, len(composed))
    if not is_encodable.all():
        if unknown_characters == "error" or not is_encodable.any():
            raise _unknown_characters(operation, composed, is_encodable, charset)
        tokens = tokens[np.repeat(is_encodable, lengths)]
        lengths = lengths[is_encodable]
        composed = [word for word, keep in zip(composed, is_encodable, strict=True) if keep]
    return Spellings(composed, tokens, lengths)


def separator_classes(operation: str, separators: str, charset: Charset) -> list[int]:
    """The classes of those separators that the charset has."""
    check_str(f"{operation}: separators", separators)
    classes, _ = charset.encode(list(separators), unknown="skip", padded=False)
    return sorted(set(classes.tolist()))


def token_to_class(tokens: Sequence[str], separators: Sequence[str]) -> dict[str, int]:
    """Maps token names to classes; checks that separators are among them."""
    classes = {name: index for index, name in enumerate(tokens)}
    if len(classes) != len(tokens):
        repeated = next(name for index, name in enumerate(tokens) if classes[name] != index)
        raise ValueError(f"from_spellings: tokens must be distinct, got {repeated!r} twice")
    for separator in separators:
        if separator not in classes:
            raise ValueError(f"from_spellings: separators must be among tokens, got {separator!r}")
    return classes


def check_spelling(word: str, names: Sequence[str]) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(
            f"from_spellings: spellings must be sequences of tokens, got {type(names).__name__} for {word!r}"
        )


def encode_spelling(where: str, word: str, names: Sequence[str], classes: Mapping[str, int]) -> list[int]:
    """The classes of the tokens that spell a word; error messages begin with `where`."""
    for name in names:
        if name not in classes:
            raise ValueError(f"{where}: spellings must consist of tokens, got {name!r} in that of {word!r}")
    if not names:
        raise ValueError(f"{where}: spellings must not be empty, got an empty one for {word!r}")
    return [classes[name] for name in names]


def encode_lexicon_spelling(
    where: str, word: str, names: Sequence[str], classes: Mapping[str, int], separators: Sequence[str]
) -> list[int]:
    """Like `encode_spelling`, without trailing separators."""
    end = len(names)
    while end and names[end - 1] in separators:
        end -= 1
    for name in names[:end]:
        if name in separators:
            raise ValueError(
                f"{where}: spellings may have separators only at the end, got {name!r} in that of {word!r}"
            )
    return encode_spelling(where, word, names[:end], classes)


def _unknown_characters(
    operation: str, words: list[str], is_encodable: npt.NDArray[np.bool_], charset: Charset
) -> ValueError:
    rejected = [words[index] for index in np.flatnonzero(~is_encodable)]
    missing = charset.count_unknown(rejected)
    named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character, _ in missing.most_common(8))
    return ValueError(
        f"{operation}: words must consist of characters of the charset, but {len(rejected)} of {len(words)} "
        f"do not, such as {short_repr(rejected[0])}; the charset lacks {named}"
        f"{' and others' if len(missing) > 8 else ''}"
    )
