"""Evaluation of a recognizer on labeled lines: error rates, confidence intervals, calibration."""

from .calibration import Calibration
from .evaluate import EvaluatedLine, Evaluation, LabeledLines, evaluate
from .metrics import ErrorCounts, Metrics

__all__ = [
    "Calibration",
    "ErrorCounts",
    "EvaluatedLine",
    "Evaluation",
    "LabeledLines",
    "Metrics",
    "evaluate",
]
