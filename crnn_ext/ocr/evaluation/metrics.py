"""Metrics: character and word error rates, and the accuracy of whole lines.

`docs/how-to/evaluate.md` defines them. `dataclasses.asdict` converts the results to JSON-serializable dicts.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crnn_ext.text.graphemes import graphemes

from .intervals import Rate, bootstrap_error_rate, wilson_rate

Unit = Literal["graphemes", "code points"]

_EditOperations = Callable[[Sequence[str], Sequence[str]], Any]

# The lower edges of the length bins, in characters. Fixed edges make results on different data comparable.
LENGTH_BIN_EDGES = (0, 1, 5, 10, 20, 40, 60, 80)

# Maximum number of confusions in `ErrorCounts.metrics`.
MAX_CONFUSIONS = 20

# Columns of `ErrorCounts.characters` and `ErrorCounts.words`.
_UNITS, _ERRORS = 0, slice(1, 4)


@dataclass(frozen=True)
class ErrorRate:
    """The errors per unit of the truth, and their counts. The rate may exceed 1.

    `rate` is None if the truth has no units.
    """

    rate: Rate | None
    units: int
    substitutions: int
    insertions: int
    deletions: int


@dataclass(frozen=True)
class Scores:
    """Character and word error rates, and the share of lines without errors, which is None without lines."""

    lines: int
    cer: ErrorRate
    wer: ErrorRate
    accuracy: Rate | None


@dataclass(frozen=True)
class Confusion:
    """A character of the truth, the character read instead, and the count; "" if inserted or deleted."""

    truth: str
    read: str
    count: int


@dataclass(frozen=True)
class Metrics:
    """Scores of all lines and of groups of lines, and the most frequent confusions.

    `by_length` maps the length bins of the truth that occur, such as "10-19" and "80-", to scores.
    `by_doubled` has the keys "doubled" and "not doubled": whether the truth has a code point twice in a row.
    """

    overall: Scores
    by_length: dict[str, Scores]
    by_doubled: dict[str, Scores]
    confusions: list[Confusion]


@dataclass(frozen=True, eq=False)
class ErrorCounts:
    """The error counts of L lines, from which all metrics are computed.

    Processes that each read a shard of the lines exchange their counts and `merge` them.

    Attributes:
        characters: int64 `(L, 4)`: characters of the truth; substitutions, insertions and deletions.
        words: the same for words.
        doubled: bool `(L,)`: whether the truth has a code point twice in a row.
        confusions: the count of each (truth, read) pair among the character errors.
    """

    characters: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]
    doubled: npt.NDArray[np.bool_]
    confusions: Counter[tuple[str, str]]

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]], unit: Unit = "graphemes") -> "ErrorCounts":
        """Counts the errors in texts.

        Args:
            pairs: (truth, read) of each line, in any Unicode normalization form; they are compared in NFC.
            unit: the unit that counts as a character: a grapheme cluster (a user-perceived character) or a
                code point.

        Raises:
            ValueError: the unit is unknown.
            ImportError: the package rapidfuzz is not installed.
        """
        if unit not in ("graphemes", "code points"):
            raise ValueError(
                f"ErrorCounts.from_pairs: unit must be 'graphemes' or 'code points', got {unit!r}"
            )
        edit_operations = _edit_operations()
        characters, words, doubled = [], [], []
        confusions: Counter[tuple[str, str]] = Counter()
        for pair in pairs:
            truth, read = (unicodedata.normalize("NFC", text) for text in pair)
            truth_characters = _characters(truth, unit)
            edits = _edits(truth_characters, _characters(read, unit), edit_operations)
            characters.append(_counts(truth_characters, edits))
            confusions.update(edits)
            words.append(_counts(truth.split(), _edits(truth.split(), read.split(), edit_operations)))
            doubled.append(any(map(str.__eq__, truth, truth[1:])))
        return cls(
            np.array(characters, np.int64).reshape(-1, 4),
            np.array(words, np.int64).reshape(-1, 4),
            np.array(doubled, np.bool_),
            confusions,
        )

    @classmethod
    def merge(cls, parts: Sequence["ErrorCounts"]) -> "ErrorCounts":
        """Concatenates the counts of one or more parts.

        The metrics do not depend on the order of the parts.
        """
        return cls(
            np.concatenate([part.characters for part in parts]),
            np.concatenate([part.words for part in parts]),
            np.concatenate([part.doubled for part in parts]),
            sum((part.confusions for part in parts), Counter()),
        )

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        """The character errors of each line, `(L,)`; a line without errors is correct."""
        errors: npt.NDArray[np.int64] = self.characters[:, _ERRORS].sum(axis=1)
        return errors

    def metrics(self) -> Metrics:
        """Computes all metrics."""
        bins = np.searchsorted(LENGTH_BIN_EDGES, self.characters[:, _UNITS], side="right") - 1
        by_length = {_length_bin(index): self._scores(bins == index) for index in np.unique(bins)}
        by_doubled = {"doubled": self.doubled, "not doubled": ~self.doubled}
        frequent = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0]))
        return Metrics(
            self._scores(np.ones(len(self.doubled), np.bool_)),
            by_length,
            {name: self._scores(lines) for name, lines in by_doubled.items() if lines.any()},
            [Confusion(*pair, count) for pair, count in frequent[:MAX_CONFUSIONS]],
        )

    def _scores(self, lines: npt.NDArray[np.bool_]) -> Scores:
        """The scores of the lines that the mask `(L,)` selects."""
        count = int(lines.sum())
        correct = int((self.errors[lines] == 0).sum())
        cer, wer = (_rate(counts[lines]) for counts in (self.characters, self.words))
        return Scores(count, cer, wer, wilson_rate(correct, count))


def _characters(text: str, unit: Unit) -> Sequence[str]:
    return graphemes(text) if unit == "graphemes" else text


def _edit_operations() -> _EditOperations:
    """The edit-distance function of rapidfuzz, imported lazily: only error counts need rapidfuzz."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError(
            "error rates need rapidfuzz, which is not installed: install crnn_ext with its extra [ocr]",
            name=error.name,
        ) from error
    return Levenshtein.editops


def _edits(
    truth: Sequence[str], read: Sequence[str], edit_operations: _EditOperations
) -> list[tuple[str, str]]:
    """A minimal list of edits from the truth to the text read: (unit of the truth or "", unit read or "")."""
    return [
        (
            "" if edit.tag == "insert" else truth[edit.src_pos],
            "" if edit.tag == "delete" else read[edit.dest_pos],
        )
        for edit in edit_operations(truth, read)
    ]


def _counts(truth: Sequence[str], edits: Sequence[tuple[str, str]]) -> list[int]:
    """A row of `ErrorCounts.characters` or `ErrorCounts.words`."""
    insertions = sum(not unit for unit, _ in edits)
    deletions = sum(not unit for _, unit in edits)
    return [len(truth), len(edits) - insertions - deletions, insertions, deletions]


def _rate(counts: npt.NDArray[np.int64]) -> ErrorRate:
    """The error rate for the counts of lines `(L, 4)`."""
    rate = bootstrap_error_rate(counts[:, _ERRORS].sum(axis=1), counts[:, _UNITS])
    return ErrorRate(rate, *counts.sum(axis=0).tolist())


def _length_bin(index: int) -> str:
    shortest = LENGTH_BIN_EDGES[index]
    if index == len(LENGTH_BIN_EDGES) - 1:
        return f"{shortest}-"
    longest = LENGTH_BIN_EDGES[index + 1] - 1
    return f"{shortest}" if shortest == longest else f"{shortest}-{longest}"
