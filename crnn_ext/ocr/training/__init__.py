"""Training of a recognition network on lines of text, as `crnn-ext train` does it.

Needs the optional dependencies of `crnn_ext[train]`.
"""

from .callbacks import Callback, SkippedLines, StepMetrics, ValidationResult
from .config import TrainingConfig
from .loop import TrainingError, TrainingResult
from .run import train

__all__ = [
    "Callback",
    "SkippedLines",
    "StepMetrics",
    "TrainingConfig",
    "TrainingError",
    "TrainingResult",
    "ValidationResult",
    "train",
]
