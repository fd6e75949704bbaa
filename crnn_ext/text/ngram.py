"""n-gram language models."""

import gzip
import operator
import os
import zlib
from collections.abc import Iterable, Sequence
from unicodedata import normalize

import numpy as np

from crnn_ext import _text
from crnn_ext.text._tables import Automaton
from crnn_ext.text.charset import Charset
from crnn_ext.text.lexicon import Lexicon

_Path = str | os.PathLike[str]

# What the space is called in training texts for models over characters, the clearest name first.
_SPACES = ("<space>", "\u2581", "|", "_")
# The beginning and the end of a text, which no token is.
_MARKERS = ("<s>", "</s>")
_CHUNK_BYTES = 1 << 22
# How KenLM's binary files begin.
_KENLM_BINARY = b"mmap lm http://kheafield.com/code"


class NGramModel:
    """A back-off n-gram model over the tokens of a network or the words of a lexicon; see `from_arpa`.

    It reads symbols: the classes 0 to C - 1, or the words 0 to W - 1 of the lexicon and W for any other word.
    A model never changes, and it pickles.
    """

    def __init__(self, automaton: Automaton, order: int, tokens: Charset | Sequence[str] | Lexicon) -> None:
        self._automaton = automaton
        self._order = order
        self._tokens = tokens if isinstance(tokens, Charset | Lexicon) else tuple(tokens)
        self._num_symbols = len(_names(tokens))

    @classmethod
    def from_arpa(
        cls,
        path: _Path,
        tokens: Charset | Sequence[str] | Lexicon,
        *,
        separator: str = " ",
        space: str | None = None,
    ) -> "NGramModel":
        """The model in an ARPA file, plain or compressed by gzip, in UTF-8.

        Each symbol stands for the unit (the "word" of the file) that has its name in NFC: the character, the
        name of the token, the word of the lexicon. Symbols that are no unit of the model count as <unk>; a
        model without <unk> gives it the probability 10^-100, as KenLM does. So does a token that is called
        <s> or </s>: these stand for the beginning and the end of a text, which no token is.

        Units cannot hold a space, and models call it by several names. The token `separator` therefore stands
        for the unit `space`; if that is None, for the unit of its own name; if there is none, for the one of
        `<space>`, `▁` (U+2581), `|` and `_` that is a unit of the model, but not itself a token.

        Args:
            path: the file. n-grams of any order; those whose context the file lacks get it by back-off.
            tokens: what the model is over: the characters of a Charset, the names of the C classes in their
                order, or the words of a Lexicon.
            separator: the token that separates words, if there is one.
            space: the unit that it stands for; "<unk>" if the model has none.

        Raises:
            ValueError: the file is not of this format, with its name and the number of the line; no symbol is
                a unit of the model, or the model is over words and the tokens are not, or the other way
                round; `space` is no unit, or is needed to tell which unit is the space.
            TypeError: tokens has the wrong type.
            OSError: the file cannot be read.
        """
        names = _names(tokens)
        ngrams = _read(path)
        _check_kind(path, tokens, names, ngrams.words)
        units = _units(path, names, ngrams.words, separator, space)
        return cls(Automaton.from_native(ngrams.automaton(units)), ngrams.order, tokens)

    @property
    def order(self) -> int:
        """The number of units in the longest n-grams."""
        return self._order

    @property
    def automaton(self) -> Automaton:
        """What weighs texts, over symbols; in nats."""
        return self._automaton

    @property
    def lexicon(self) -> Lexicon | None:
        """The lexicon whose words the model reads; None if it reads tokens."""
        return self._tokens if isinstance(self._tokens, Lexicon) else None

    @property
    def num_symbols(self) -> int:
        """How many symbols the model reads: the C classes, or the words of the lexicon and one for others."""
        return self._num_symbols

    @property
    def blank(self) -> int | None:
        """The blank of the charset that the model is over; None where that is not known."""
        return None if isinstance(self._tokens, tuple) else self._tokens.blank

    @property
    def num_classes(self) -> int:
        """C of the logits that the model is for."""
        return self.num_symbols if self.lexicon is None else self.lexicon.num_classes

    def score(
        self, text: str | Sequence[str] | Sequence[int], *, bos: bool = True, eos: bool = True
    ) -> float:
        """The logarithm of the probability of a text, in nats.

        Args:
            text: symbols, or their names in a sequence. Also a str: the characters of a Charset, or the
                words of a lexicon with white space between them.
            bos: whether the text begins after <s>, not amid another text of which nothing is known.
            eos: whether </s> comes after it.

        Raises:
            ValueError: a symbol is out of range, or a name is no token. A word may be any.
            TypeError: text has the wrong type.
        """
        automaton = self._automaton
        first_edge, edge_symbol = automaton.first_edge.numpy(), automaton.edge_symbol.numpy()
        state = automaton.start if bos else 0
        total = 0.0
        for symbol in self._symbols(text):
            while True:
                edges = slice(first_edge[state], first_edge[state + 1])
                edge = edges.start + np.searchsorted(edge_symbol[edges], symbol)
                if edge < edges.stop and edge_symbol[edge] == symbol:
                    break
                total += float(automaton.fail_weight[state])
                state = int(automaton.fail_state[state])
            total += float(automaton.edge_weight[edge])
            state = int(automaton.edge_target[edge])
        return total + float(automaton.final_weight[state]) if eos else total

    def __repr__(self) -> str:
        over = "tokens" if self.lexicon is None else "words"
        states = len(self._automaton.fail_state)
        return f"NGramModel(order={self._order}, {self.num_symbols} {over}, {states} states)"

    def _symbols(self, text: str | Sequence[str] | Sequence[int]) -> Iterable[int]:
        lexicon = self.lexicon
        units: Sequence[str | int] = text
        if isinstance(text, str):
            if isinstance(self._tokens, tuple):
                raise TypeError("score: text must be a sequence of names or symbols, and it is str")
            units = text.split() if lexicon is not None else normalize("NFC", text)
        names = {} if lexicon is not None else {name: i for i, name in enumerate(_names(self._tokens))}
        for index, unit in enumerate(units):
            if isinstance(unit, str):
                symbol = names.get(unit) if lexicon is None else lexicon.get_index(unit)
                if symbol is None:
                    raise ValueError(f"score: text must hold tokens only, and text[{index}] is {unit!r}")
                yield symbol
            elif 0 <= unit < self._num_symbols:
                yield operator.index(unit)
            else:
                raise ValueError(
                    f"score: symbols must be in [0, {self._num_symbols}), and text[{index}] is {unit}"
                )


def _names(tokens: Charset | Sequence[str] | Lexicon) -> list[str | None]:
    """The name of each symbol; None for the blank of a Charset and for the words a lexicon does not have."""
    if isinstance(tokens, Charset):
        return [*tokens.characters[: tokens.blank], None, *tokens.characters[tokens.blank :]]
    if isinstance(tokens, Lexicon):
        return [*tokens.words, None]
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise TypeError(
            "from_arpa: tokens must be a Charset, a sequence of str or a Lexicon, and it is "
            f"{type(tokens).__name__}"
        )
    for index, name in enumerate(tokens):
        if not isinstance(name, str):
            raise TypeError(f"from_arpa: tokens[{index}] must be a str, and it is {type(name).__name__}")
    return [normalize("NFC", name) for name in tokens]


def _read(path: _Path) -> _text.NGrams:
    reader = _text.ArpaReader()
    with open(path, "rb") as file:
        start = file.peek(len(_KENLM_BINARY))
        if start.startswith(_KENLM_BINARY):
            raise ValueError(
                f"from_arpa: path must be that of an ARPA file, and {path} is a binary file of KenLM"
            )
        stream = gzip.GzipFile(fileobj=file) if start.startswith(b"\x1f\x8b") else file
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                reader.read(chunk)
            return reader.finish()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"from_arpa: {path}, behind line {reader.lines}: {error}") from None
        except ValueError as error:
            raise ValueError(f"from_arpa: {path}, {error}") from None


def _units(
    path: _Path, names: list[str | None], words: list[str], separator: str, space: str | None
) -> list[int]:
    """The number of the unit that each symbol stands for."""
    numbers = {normalize("NFC", word): number for number, word in enumerate(words)}
    # A unit that is written in NFC comes before one that only becomes the same.
    numbers.update((word, number) for number, word in enumerate(words))
    for marker in _MARKERS:
        numbers.pop(marker, None)
    if separator in names:
        numbers[separator] = numbers[_space(path, names, numbers, separator, space)]
    elif space is not None:
        raise ValueError(
            f"from_arpa: space must be None if no token is the separator {separator!r}, and it is {space!r}"
        )
    unknown = numbers["<unk>"]
    units = [unknown if name is None else numbers.get(name, unknown) for name in names]
    if any(names) and all(unit == unknown for unit in units):
        raise ValueError(
            f"from_arpa: tokens must be units of the model, and {path} has none of them; its units are "
            f"{_listed(words)}"
        )
    return units


def _check_kind(
    path: _Path, tokens: Charset | Sequence[str] | Lexicon, names: list[str | None], words: list[str]
) -> None:
    """Checks that symbols and units are of one kind.

    That some of them are the same does not say so: a model over words has units like "a" too.
    """
    units = [normalize("NFC", word) for word in words if word not in (*_SPACES, *_MARKERS, "<unk>")]
    symbols = [name for name in names if name and name not in _MARKERS]
    if not isinstance(tokens, Lexicon) and _are_words(units, symbols):
        raise ValueError(
            f"from_arpa: tokens must be a Lexicon for a model over words, and most units of {path} are "
            f"longer than a character and no tokens: {_listed(units)}"
        )
    if _are_words(symbols, units) and not _are_words(units, ()):
        raise ValueError(
            "from_arpa: tokens must be characters for a model over characters, and most of them are longer "
            f"and no units of {path}: {_listed(symbols)}"
        )


def _are_words(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether most of the names have several characters, and are not among the others."""
    known = set(others)
    return 2 * sum(len(name) > 1 and name not in known for name in names) > len(names)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:8]))}{' and others' if len(names) > 8 else ''}"


def _space(
    path: _Path, names: list[str | None], numbers: dict[str, int], separator: str, space: str | None
) -> str:
    """The unit that the separator stands for."""
    if space is not None:
        if space not in numbers:
            raise ValueError(f"from_arpa: space must be a unit of the model, and {path} has no {space!r}")
        return space
    if separator in numbers:
        return separator
    found = [unit for unit in _SPACES if unit in numbers and unit not in names]
    if len(found) != 1:
        raise ValueError(
            f"from_arpa: space must say which unit of {path} the token {separator!r} stands for ('<unk>' if "
            f"none): of {', '.join(_SPACES)} it has {' and '.join(found) or 'none'} that is no token itself"
        )
    return found[0]
