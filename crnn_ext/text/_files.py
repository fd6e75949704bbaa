"""Files of tokens and of words' spellings, in the formats of flashlight and torchaudio."""

import os
from collections.abc import Iterator, Sequence
from unicodedata import normalize

from crnn_ext.text._words import encode_spelling_without_separators, token_to_class

Path = str | os.PathLike[str]


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file, one a line; empty lines are left out. The only white space is a token " "."""
    names = []
    for number, line in _lines(path):
        if line != " " and (" " in line or "\t" in line):
            raise ValueError(f"{path}, line {number}: a line must be one token, and it is {line!r}")
        if line:
            names.append(line)
    return names


def read_lexicon(path: Path, tokens: Sequence[str], separators: Sequence[str]) -> dict[str, list[list[str]]]:
    """The words, in NFC, of a file with lines "word token token ..."; a word may have several lines.

    Between them is ASCII white space, so that tokens may be other spaces. Empty lines are left out, but there
    must be a word.
    """
    classes = token_to_class(tokens, separators)
    found: dict[str, list[list[str]]] = {}
    for number, line in _lines(path):
        word, *spelling = [part.decode() for part in line.encode().split()] or [""]
        if not word:
            continue
        where = f"{path}, line {number}"
        if not spelling:
            raise ValueError(f"{where}: a line must be a word and its spelling, and it is {word!r} alone")
        encode_spelling_without_separators(where, word, spelling, classes, separators)
        found.setdefault(normalize("NFC", word), []).append(spelling)
    if not found:
        raise ValueError(f"{path}: a lexicon must have words, and this file has none")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in UTF-8 and their numbers, from 1."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.rstrip(b"\r\n").decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 ({error})") from None
