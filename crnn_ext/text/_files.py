"""Reads token files and lexicon files in the formats of flashlight and torchaudio."""

import os
from collections.abc import Iterator, Sequence
from unicodedata import normalize

from crnn_ext.text._words import encode_lexicon_spelling, token_to_class

Path = str | os.PathLike[str]


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file, one per line; empty lines are skipped. Only the token " " has white space."""
    names = []
    for number, line in _lines(path):
        if line != " " and (" " in line or "\t" in line):
            raise ValueError(f"{path}, line {number}: a line must hold one token, got {line!r}")
        if line:
            names.append(line)
    return names


def read_lexicon(path: Path, tokens: Sequence[str], separators: Sequence[str]) -> dict[str, list[list[str]]]:
    """The spellings of each word (in NFC) in a file of lines "word token token ...".

    A word may have several lines. Only ASCII white space separates fields, so tokens may be other spaces.
    Empty lines are skipped; the file must hold at least one word.
    """
    classes = token_to_class(tokens, separators)
    found: dict[str, list[list[str]]] = {}
    for number, line in _lines(path):
        word, *spelling = [part.decode() for part in line.encode().split()] or [""]
        if not word:
            continue
        where = f"{path}, line {number}"
        if not spelling:
            raise ValueError(f"{where}: a line must hold a word and its spelling, got only {word!r}")
        encode_lexicon_spelling(where, word, spelling, classes, separators)
        found.setdefault(normalize("NFC", word), []).append(spelling)
    if not found:
        raise ValueError(f"{path}: a lexicon file must hold at least one word")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file and their numbers, from 1."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.rstrip(b"\r\n").decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 ({error})") from None
