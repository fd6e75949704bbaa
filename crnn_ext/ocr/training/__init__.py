"""Training a recognition network on lines of text; `crnn-ext train` from Python.

Needs the optional dependencies of `crnn_ext[train]`.
"""

from .config import TrainingConfig
from .events import LeftOut, Observer, Step, Validation
from .loop import Outcome, TrainingError
from .start import train

__all__ = [
    "LeftOut",
    "Observer",
    "Outcome",
    "Step",
    "TrainingConfig",
    "TrainingError",
    "Validation",
    "train",
]
