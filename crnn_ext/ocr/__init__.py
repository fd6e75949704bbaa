"""Text recognition in images: preprocessing, checkpoints, recognizer and evaluation.

Requires the optional dependencies of `crnn_ext[ocr]`.
"""

try:
    import PIL  # noqa: F401 (report missing dependencies here, in one place)
    import regex  # noqa: F401
    import safetensors  # noqa: F401
    import tqdm  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"crnn_ext.ocr needs {error.name}, which is not installed: install crnn_ext with its extra [ocr]",
        name=error.name,
    ) from error

from .checkpoints import (
    Architecture,
    Checkpoint,
    CheckpointError,
    CheckpointWarning,
    load_checkpoint,
    save_checkpoint,
)
from .evaluation import Calibration, ErrorCounts, EvaluatedLine, Evaluation, LabeledLines, Metrics, evaluate
from .images import ImageError, Preprocessing
from .reading import Alternative, BeamSearch, Character, DecodedText, Decoding, Reading, Recognizer, greedy

__all__ = [
    "Alternative",
    "Architecture",
    "BeamSearch",
    "Calibration",
    "Character",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "DecodedText",
    "Decoding",
    "ErrorCounts",
    "EvaluatedLine",
    "Evaluation",
    "ImageError",
    "LabeledLines",
    "Metrics",
    "Preprocessing",
    "Reading",
    "Recognizer",
    "evaluate",
    "greedy",
    "load_checkpoint",
    "save_checkpoint",
]
