"""Converts between texts and the classes of a CTC network."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from reprlib import Repr
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crnn_ext import _text
from crnn_ext._arguments import check_choice, check_each_str, check_int, check_keys, check_type

# The decoders pad tokens with it, too. It is not a class, so padding mistaken for labels raises an error.
PADDING = -1

_repr = Repr()
_repr.maxstring = 72
# Quotes values in messages; the middle of long ones is cut.
short_repr = _repr.repr


class Charset:
    """The characters of a network's classes, and the blank.

    A character is one Unicode code point in composed form (NFC). "é" may also be given and encoded as "e"
    with a combining acute accent. What NFC leaves as several code points, such as a Devanagari letter with
    its vowel sign, is several characters, each with its own class.

    A charset is immutable, hashable and picklable. Charsets are equal if they have the same characters in the
    same order and the same blank.

    Args:
        characters: a str in which each code point is a character, or a sequence of one str per character.
            They take the classes from 0 on in this order, skipping `blank`.
        blank: the class of the blank, from 0 to the number of characters.

    Raises:
        ValueError: if a character occurs twice, is not one code point after NFC or is a lone surrogate, or if
            the blank is out of range.
        TypeError: if an argument has another type. Sets are rejected: their order varies between processes.
    """

    def __init__(self, characters: str | Sequence[str], blank: int = 0) -> None:
        self._characters = _distinct_characters(characters)
        check_int("Charset: blank", blank, 0, len(self._characters))
        self._blank = blank
        self._known = frozenset(self._characters)
        self._native = _text.Charset(self._characters, blank)

    @classmethod
    def from_labels(cls, texts: str | Iterable[str], blank: int = 0) -> "Charset":
        """The charset of all characters in the texts (after NFC), sorted by code point.

        Raises:
            TypeError: if a text is not a str.
            ValueError: see the constructor.
        """
        return cls(sorted(set("".join(_composed_texts("from_labels", texts)))), blank)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], blank: int = 0) -> "Charset":
        """The charset of all characters in a UTF-8 file (after NFC), in order of first appearance.

        Line breaks and a byte order mark are ignored: one character per line, as other toolkits write them,
        gives the same charset as all characters on one line.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if the file is not UTF-8 or has no characters; the message names it. See also the
                constructor.
        """
        try:
            with open(path, encoding="utf-8-sig") as file:
                lines = file.read().split("\n")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: a charset file must be UTF-8") from None
        characters = dict.fromkeys("".join(_composed_texts("from_file", lines)))
        if not characters:
            raise ValueError(f"{path}: a charset file must hold at least one character")
        return cls(list(characters), blank)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Charset":
        """The charset that `to_dict` wrote. Safe for untrusted data.

        Raises:
            TypeError, ValueError: if the data has another form; see also the constructor.
        """
        return cls(**check_keys("from_dict: data", data, {"characters", "blank"}))

    def to_dict(self) -> dict[str, Any]:
        """`{"characters": str, "blank": int}`, for checkpoints and JSON."""
        return {"characters": self._characters, "blank": self._blank}

    @property
    def characters(self) -> str:
        """The characters in the order of their classes."""
        return self._characters

    @property
    def blank(self) -> int:
        """The class of the blank."""
        return self._blank

    @property
    def num_classes(self) -> int:
        """The number of characters plus one for the blank: C of the network's logits."""
        return len(self._characters) + 1

    def encode(
        self, texts: str | Iterable[str], *, unknown: Literal["error", "skip"] = "error", padded: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The targets and target lengths of texts, as `CTCLoss` takes them.

        Args:
            texts: N texts, or a single one. They are normalized to NFC.
            unknown: for characters that the charset lacks: "error" raises, "skip" omits them. `count_unknown`
                lists them.
            padded: return padded targets; otherwise concatenated ones.

        Returns:
            targets: int64, `(N, S)` padded with -1 to the longest text, or `(sum of lengths,)` concatenated;
                `(S,)` for a single text.
            lengths: int64, `(N,)`; `()` for a single text.

        Raises:
            ValueError: if a character is unknown; the message names it, its text and its position after NFC.
            TypeError: if a text is not a str.
        """
        check_choice("encode: unknown", unknown, ("error", "skip"))
        composed = _composed_texts("encode", texts)
        targets, lengths, skipped = self._native.encode(composed)
        if skipped and unknown == "error":
            raise self._unknown_character(composed)
        if isinstance(texts, str):
            return torch.from_numpy(targets), torch.from_numpy(lengths)[0]
        if padded:
            mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
            rows = np.full(mask.shape, PADDING, np.int64)
            rows[mask] = targets
            targets = rows
        return torch.from_numpy(targets), torch.from_numpy(lengths)

    def count_unknown(self, texts: str | Iterable[str]) -> Counter[str]:
        """Counts the characters of the texts (after NFC) that the charset lacks.

        Raises:
            TypeError: if a text is not a str.
        """
        composed = _composed_texts("count_unknown", texts)
        return Counter(character for text in composed for character in text if character not in self._known)

    def decode(self, tokens: Tensor | npt.ArrayLike, lengths: Tensor | npt.ArrayLike | None = None) -> Any:
        """The texts of collapsed tokens (repeats and blanks removed), as the decoders return them.

        Tokens and lengths may have any integer dtype and be on any device. Negative tokens are padding and
        are skipped. The texts are not normalized to NFC.

        Args:
            tokens: `(N, T)` padded, `(N, K, T)` with K texts per sample, `(sum of lengths,)` concatenated, or
                `(T,)` for a single text.
            lengths: the number of tokens of each text, `(N,)` or `(N, K)`, or `()` for a single text.
                Required for concatenated tokens; otherwise optional, since padding marks the end. A length of
                -1 means a missing text, such as a beam search may return; it is decoded as "".

        Returns:
            A list of N texts; N lists of K texts for K texts per sample; a str for a single text.

        Raises:
            ValueError: if a token is the blank or not below `num_classes`, or if the lengths do not fit.
            TypeError: if tokens or lengths are not arrays of integers.
        """
        array = _integers("tokens", tokens)
        if array.ndim not in (1, 2, 3):
            raise ValueError(f"decode: tokens must have 1 to 3 dimensions, got {array.ndim}")
        width = array.shape[-1]
        counts = np.full(array.shape[:-1], width) if lengths is None else _integers("lengths", lengths)
        concatenated = array.ndim == counts.ndim == 1
        if not concatenated and counts.shape != array.shape[:-1]:
            raise ValueError(
                "decode: lengths must be (N,) for tokens (N, T), (N, K) for tokens (N, K, T), and (N,) or () "
                f"for 1-D tokens, got shape {counts.shape} for tokens of shape {array.shape}"
            )
        least = 0 if concatenated else -1
        misfits = np.flatnonzero((counts < least) | (counts > width))
        if misfits.size:
            name, value = _element("lengths", counts, misfits[0])
            raise ValueError(f"decode: {name} must be in [{least}, {width}], got {value}")
        counts = np.maximum(counts, 0)
        if concatenated and counts.sum() != width:
            raise ValueError(
                f"decode: lengths must add up to {width}, the length of tokens, got a sum of {counts.sum()}"
            )

        starts = np.cumsum(counts) - counts if concatenated else width * np.arange(counts.size)
        texts, invalid = self._native.decode(array, starts, counts)
        if invalid is not None:
            name, value = _element("tokens", array, invalid)
            if value == self._blank:
                raise ValueError(
                    "decode: tokens must be collapsed (repeats and blanks removed), got "
                    f"{name} = {value}, the blank"
                )
            raise ValueError(f"decode: {name} must be below num_classes={self.num_classes}, got {value}")
        if counts.ndim == 2:
            samples, per_sample = counts.shape
            return [texts[n * per_sample : (n + 1) * per_sample] for n in range(samples)]
        return texts if counts.ndim else texts[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Charset):
            return NotImplemented
        return self._characters == other._characters and self._blank == other._blank

    def __hash__(self) -> int:
        return hash((self._characters, self._blank))

    def __reduce__(self) -> tuple[type["Charset"], tuple[str, int]]:
        return type(self), (self._characters, self._blank)

    def __repr__(self) -> str:
        return f"Charset({short_repr(self._characters)}, blank={self._blank})"

    def _unknown_character(self, texts: Sequence[str]) -> ValueError:
        """The error for the first character of the texts that the charset lacks."""
        index, text, position, character = next(
            (index, text, position, character)
            for index, text in enumerate(texts)
            for position, character in enumerate(text)
            if character not in self._known
        )
        return ValueError(
            f"encode: texts must consist of characters of the charset, got {_named(character)} at position "
            f"{position} of texts[{index}], {short_repr(text)}"
        )


def _distinct_characters(characters: str | Sequence[str]) -> str:
    check_type("Charset: characters", characters, Sequence, "a str or a sequence of str")
    check_each_str("Charset: characters", characters)
    positions: dict[str, int] = {}
    for position, character in enumerate(characters):
        composed = unicodedata.normalize("NFC", character)
        if len(composed) != 1:
            raise ValueError(
                f"Charset: characters[{position}] must be one code point after NFC, got {len(composed)} in "
                f"{short_repr(character)}"
            )
        if "\ud800" <= composed <= "\udfff":
            raise ValueError(
                f"Charset: characters[{position}] must not be a lone surrogate, got {_named(composed)}"
            )
        if composed in positions:
            raise ValueError(
                f"Charset: characters must be distinct, got {_named(composed)} at {positions[composed]} and "
                f"{position}"
            )
        positions[composed] = position
    return "".join(positions)


def _composed_texts(operation: str, texts: str | Iterable[str]) -> tuple[str, ...]:
    """The texts in NFC; a str is one text."""
    check_type(f"{operation}: texts", texts, Iterable, "a str or an iterable of str")
    items = (texts,) if isinstance(texts, str) else tuple(texts)
    check_each_str(f"{operation}: texts", items)
    return tuple(unicodedata.normalize("NFC", item) for item in items)


def _integers(argument: str, values: Tensor | npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The values as the native module takes them: int64 and aligned, with any strides."""
    try:
        array = values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError) as error:  # ragged rows, or a dtype that NumPy lacks
        raise TypeError(f"decode: {argument} must be an array of integers ({error})") from None
    # NumPy converts an empty list to floats.
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"decode: {argument} must be an array of integers, got {array.dtype}")
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"decode: {argument} must be below 2^63, got {array.max()}")
    return np.require(array, np.int64, ["ALIGNED"])


def _element(argument: str, array: npt.NDArray[np.int64], flat_index: int) -> tuple[str, int]:
    """The name of an element in messages, such as tokens[3, 7], and its value."""
    index = np.unravel_index(flat_index, array.shape)
    name = f"{argument}[{', '.join(map(str, index))}]" if index else argument
    return name, int(array.flat[flat_index])


def _named(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"
