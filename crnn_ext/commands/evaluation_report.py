"""Reports of an evaluation, as text and as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from crnn_ext._formatting import pluralize, printable

from .messages import throughput

if TYPE_CHECKING:
    from crnn_ext.ocr import Calibration, Evaluation, Metrics
    from crnn_ext.ocr.evaluation.intervals import Rate
    from crnn_ext.ocr.evaluation.metrics import ErrorRate, Scores


def as_json(evaluation: "Evaluation", worst: int) -> str:
    """An object with all numbers and the worst lines; undefined rates are null."""
    report = {
        "lines": len(evaluation.lines),
        "seconds": evaluation.seconds,
        "unit": evaluation.unit,
        **asdict(evaluation.metrics),
        "calibration": asdict(evaluation.calibration),
        "unknown": dict(evaluation.unknown.most_common()),
        "unreadable": [line._asdict() for line in evaluation.unreadable],
        "worst": [line._asdict() for line in evaluation.worst(worst)],
    }
    return json.dumps(report, indent=2)


def as_text(evaluation: "Evaluation", worst: int) -> str:
    """Tables, separated by empty lines."""
    sections = [
        [throughput(len(evaluation.lines), "line", evaluation.seconds)],
        _scores(evaluation.metrics),
        _errors(evaluation.metrics.overall),
        _unknown(evaluation),
        _confusions(evaluation.metrics),
        _calibration(evaluation.calibration),
        _worst(evaluation, worst),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _scores(metrics: "Metrics") -> list[str]:
    groups = [("all lines", metrics.overall)]
    groups += [(f"length {length}", scores) for length, scores in metrics.by_length.items()]
    groups += list(metrics.by_doubled.items())
    rows = [
        (
            name,
            f"{scores.lines}",
            _percent(scores.cer.rate),
            _percent(scores.wer.rate),
            _percent(scores.accuracy),
        )
        for name, scores in groups
    ]
    return _table([("with 95 % intervals", "lines", "CER %", "WER %", "right lines %"), *rows])


def _errors(scores: "Scores") -> list[str]:
    def row(name: str, errors: "ErrorRate") -> list[str]:
        kinds = (errors.substitutions, errors.insertions, errors.deletions)
        return [name, *map(str, (errors.units, sum(kinds), *kinds))]

    header = ("", "in truth", "errors", "substitutions", "insertions", "deletions")
    return _table([header, row("characters", scores.cer), row("words", scores.wer)])


def _unknown(evaluation: "Evaluation") -> list[str]:
    counts = evaluation.unknown.most_common()
    if not counts:
        return []
    characters = ", ".join(f"{character!r} {count}" for character, count in counts)
    return [f"in the truth, but not in the charset: {characters}"]


def _confusions(metrics: "Metrics") -> list[str]:
    rows = [
        (repr(confusion.truth), repr(confusion.read), f"{confusion.count}")
        for confusion in metrics.confusions
    ]
    return _table([("truth", "read", "times"), *rows]) if rows else []


def _calibration(calibration: "Calibration") -> list[str]:
    rows = [
        (
            f"{bin_.low:.1f} to {bin_.high:.1f}",
            f"{bin_.lines}",
            f"{bin_.confidence:.3f}",
            f"{bin_.accuracy:.3f}",
        )
        for bin_ in calibration.bins
        if bin_.lines
    ]
    return [
        f"mean confidence {calibration.mean_confidence:.3f}, "
        f"expected calibration error {calibration.expected_error:.3f}",
        *_table([("confidence", "lines", "mean", "right"), *rows]),
    ]


def _worst(evaluation: "Evaluation", count: int) -> list[str]:
    return [
        row
        for line in evaluation.worst(count)
        for row in (
            f"{printable(line.name)}: {pluralize(line.errors, 'error')}, confidence {line.confidence:.4g}",
            f"  truth  {printable(line.truth)}",
            f"  read   {printable(line.read)}",
        )
    ]


def _percent(rate: "Rate | None") -> str:
    if rate is None:
        return "-"
    return f"{100 * rate.value:.2f} [{100 * rate.low:.2f}, {100 * rate.high:.2f}]"


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligns cells in columns, the first column to the left and the others to the right."""
    rows = list(rows)
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join(
            [row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))]
        )
        for row in rows
    ]
