"""n-gram language models."""

import gzip
import operator
import zlib
from collections.abc import Iterable, Sequence
from unicodedata import normalize

import numpy as np

from crnn_ext import _text
from crnn_ext._arguments import check_each_str
from crnn_ext.text._files import Path
from crnn_ext.text._tables import Automaton
from crnn_ext.text.charset import Charset
from crnn_ext.text.lexicon import Lexicon

# Names of the space in training texts for character models, the least ambiguous first.
_SPACES = ("<space>", "\u2581", "|", "_")
# The units for the begin and the end of a text, which no token stands for.
_MARKERS = ("<s>", "</s>")
_CHUNK_BYTES = 1 << 22
# The first bytes of KenLM's binary files.
_KENLM_BINARY = b"mmap lm http://kheafield.com/code"


class NGramModel:
    """A back-off n-gram model over the tokens of a network or the words of a lexicon; see `from_arpa`.

    Its symbols are the classes 0 to C - 1, or the words 0 to W - 1 of the lexicon and W for all other words.
    A model is immutable and picklable.
    """

    def __init__(self, automaton: Automaton, order: int, tokens: Charset | Sequence[str] | Lexicon) -> None:
        self._automaton = automaton
        self._order = order
        self._tokens = tokens if isinstance(tokens, Charset | Lexicon) else tuple(tokens)
        self._num_symbols = len(_names(tokens))

    @classmethod
    def from_arpa(
        cls,
        path: Path,
        tokens: Charset | Sequence[str] | Lexicon,
        *,
        separator: str = " ",
        space: str | None = None,
    ) -> "NGramModel":
        """Reads a model from an ARPA file in UTF-8, plain or gzipped.

        A symbol stands for the unit (a "word" of the file) with the same name in NFC: the character, the name
        of the token, or the word of the lexicon. Symbols without a unit count as <unk>; in a model without
        <unk> its probability is 10^-100, as in KenLM. Tokens named <s> or </s> count as <unk> too: these
        units mark the begin and the end of a text, and no token stands for them.

        Units cannot contain a space, so models use various names for it. The token `separator` stands for the
        unit `space`. If `space` is None, it stands for the unit with its own name; if there is none, for the
        one of `<space>`, `▁` (U+2581), `|` and `_` that is a unit of the model and not a token.

        Args:
            path: the file. n-grams may have any order; contexts that the file lacks are implied by back-off.
            tokens: what the model is over: the characters of a Charset, the names of the C classes in order,
                or the words of a Lexicon.
            separator: the token that separates words, if any.
            space: the unit of `separator`; "<unk>" if the model has none.

        Raises:
            ValueError: if the file is malformed (the message gives its name and the line number), no symbol
                is a unit of the model, only one of model and tokens is over words, `space` is not a unit, or
                `space` is None and the unit of the separator is ambiguous.
            TypeError: if tokens has the wrong type.
            OSError: if the file cannot be read.
        """
        names = _names(tokens)
        ngrams = _read(path)
        _check_kind(path, tokens, names, ngrams.words)
        units = _units(path, names, ngrams.words, separator, space)
        return cls(Automaton.from_native(ngrams.automaton(units)), ngrams.order, tokens)

    @property
    def order(self) -> int:
        """The order of the longest n-grams."""
        return self._order

    @property
    def automaton(self) -> Automaton:
        """The automaton over symbols that scores texts, in nats."""
        return self._automaton

    @property
    def lexicon(self) -> Lexicon | None:
        """The lexicon whose words the model is over; None for a model over tokens."""
        return self._tokens if isinstance(self._tokens, Lexicon) else None

    @property
    def num_symbols(self) -> int:
        """The number of symbols: C, or the number of words of the lexicon plus one for all others."""
        return self._num_symbols

    @property
    def blank(self) -> int | None:
        """The blank of the charset; None if the tokens were given as names."""
        return None if isinstance(self._tokens, tuple) else self._tokens.blank

    @property
    def num_classes(self) -> int:
        """C of the logits."""
        return self.num_symbols if self.lexicon is None else self.lexicon.num_classes

    def score(
        self, text: str | Sequence[str] | Sequence[int], *, bos: bool = True, eos: bool = True
    ) -> float:
        """The log-probability of a text, in nats.

        Args:
            text: a sequence of symbols or of their names. Or a str: characters of a Charset, or words of a
                lexicon, separated by white space.
            bos: whether the text follows <s>; otherwise its context is empty.
            eos: whether to include </s> after the text.

        Raises:
            ValueError: if a symbol is out of range or a name is not a token. Any word is accepted.
            TypeError: if text has the wrong type.
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
                raise TypeError("score: text must be a sequence of names or symbols, got str")
            units = text.split() if lexicon is not None else normalize("NFC", text)
        names = {} if lexicon is not None else {name: i for i, name in enumerate(_names(self._tokens))}
        for index, unit in enumerate(units):
            if isinstance(unit, str):
                symbol = names.get(unit) if lexicon is None else lexicon.get_index(unit)
                if symbol is None:
                    raise ValueError(f"score: text[{index}] must be a token, got {unit!r}")
                yield symbol
            elif 0 <= unit < self._num_symbols:
                yield operator.index(unit)
            else:
                raise ValueError(f"score: text[{index}] must be in [0, {self._num_symbols}), got {unit}")


def _names(tokens: Charset | Sequence[str] | Lexicon) -> list[str | None]:
    """The name of each symbol; None for the blank of a Charset and for the unknown word of a lexicon."""
    if isinstance(tokens, Charset):
        return [*tokens.characters[: tokens.blank], None, *tokens.characters[tokens.blank :]]
    if isinstance(tokens, Lexicon):
        return [*tokens.words, None]
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise TypeError(
            "from_arpa: tokens must be a Charset, a sequence of str or a Lexicon, got "
            f"{type(tokens).__name__}"
        )
    check_each_str("from_arpa: tokens", tokens)
    return [normalize("NFC", name) for name in tokens]


def _read(path: Path) -> _text.NGrams:
    reader = _text.ArpaReader()
    with open(path, "rb") as file:
        head = file.peek(len(_KENLM_BINARY))
        if head.startswith(_KENLM_BINARY):
            raise ValueError(f"from_arpa: path must name an ARPA file, got {path}, a KenLM binary file")
        stream = gzip.GzipFile(fileobj=file) if head.startswith(b"\x1f\x8b") else file
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                reader.read(chunk)
            return reader.finish()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"from_arpa: {path}, after line {reader.lines}: {error}") from None
        except ValueError as error:
            raise ValueError(f"from_arpa: {path}, {error}") from None


def _units(
    path: Path, names: list[str | None], words: list[str], separator: str, space: str | None
) -> list[int]:
    """The index of the unit of each symbol."""
    indices = {normalize("NFC", word): index for index, word in enumerate(words)}
    # A unit in NFC takes precedence over one that only normalizes to it.
    indices.update((word, index) for index, word in enumerate(words))
    for marker in _MARKERS:
        indices.pop(marker, None)
    if separator in names:
        indices[separator] = indices[_space(path, names, indices, separator, space)]
    elif space is not None:
        raise ValueError(f"from_arpa: space must be None if {separator!r} is not a token, got {space!r}")
    unknown = indices["<unk>"]
    units = [unknown if name is None else indices.get(name, unknown) for name in names]
    if any(names) and all(unit == unknown for unit in units):
        raise ValueError(
            f"from_arpa: tokens must be units of the model, but {path} has none of them; its units are "
            f"{_join(words)}"
        )
    return units


def _check_kind(
    path: Path, tokens: Charset | Sequence[str] | Lexicon, names: list[str | None], words: list[str]
) -> None:
    """Checks that symbols and units are both words or both characters.

    Some common names prove nothing: a model over words has units like "a", too.
    """
    units = [normalize("NFC", word) for word in words if word not in (*_SPACES, *_MARKERS, "<unk>")]
    symbols = [name for name in names if name and name not in _MARKERS]
    if not isinstance(tokens, Lexicon) and _are_words(units, symbols):
        raise ValueError(
            f"from_arpa: tokens must be a Lexicon for a model over words; most units of {path} have several "
            f"characters and are not tokens: {_join(units)}"
        )
    if _are_words(symbols, units) and not _are_words(units, ()):
        raise ValueError(
            "from_arpa: tokens must be characters for a model over characters; most have several characters "
            f"and are not units of {path}: {_join(symbols)}"
        )


def _are_words(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether most of the names have several characters and are not in `others`."""
    known = set(others)
    return 2 * sum(len(name) > 1 and name not in known for name in names) > len(names)


def _join(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:8]))}{' and others' if len(names) > 8 else ''}"


def _space(
    path: Path, names: list[str | None], indices: dict[str, int], separator: str, space: str | None
) -> str:
    """The unit of the separator."""
    if space is not None:
        if space not in indices:
            raise ValueError(f"from_arpa: space must be a unit of {path}, got {space!r}")
        return space
    if separator in indices:
        return separator
    found = [unit for unit in _SPACES if unit in indices and unit not in names]
    if len(found) != 1:
        raise ValueError(
            f"from_arpa: space must name the unit of {path} for the token {separator!r} ('<unk>' if none): "
            f"candidates among {', '.join(_SPACES)} that are not tokens: {', '.join(found) or 'none'}"
        )
    return found[0]
