"""Reading text in images: preprocessing, checkpoints and the recognizer that puts them together.

Needs the optional dependencies of `crnn_ext[ocr]`.
"""

try:
    import PIL  # noqa: F401 (only to say at once, and in one place, what is missing)
    import regex  # noqa: F401
    import safetensors  # noqa: F401
    import tqdm  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"crnn_ext.ocr needs {error.name}, which is not installed: install crnn_ext with its extra [ocr]",
        name=error.name,
    ) from error

from .architecture import Architecture
from .calibration import Calibration
from .checkpoint import Checkpoint, CheckpointError, CheckpointWarning, load_checkpoint, save_checkpoint
from .decoding import BeamSearch, Decoded, Decoding, greedy
from .evaluation import EvaluatedLine, Evaluation, Lines, evaluate
from .images import ImageError
from .metrics import ErrorCounts, Metrics
from .preprocessing import Preprocessing
from .recognizer import Alternative, Character, Reading, Recognizer

__all__ = [
    "Alternative",
    "Architecture",
    "BeamSearch",
    "Calibration",
    "Character",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "Decoded",
    "Decoding",
    "ErrorCounts",
    "EvaluatedLine",
    "Evaluation",
    "ImageError",
    "Lines",
    "Metrics",
    "Preprocessing",
    "Reading",
    "Recognizer",
    "evaluate",
    "greedy",
    "load_checkpoint",
    "save_checkpoint",
]
