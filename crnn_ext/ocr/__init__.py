"""Reading text in images: preprocessing, checkpoints and the recognizer that puts them together.

Needs the optional dependencies of `crnn_ext[ocr]`.
"""

try:
    import PIL  # noqa: F401 (only to say at once, and in one place, what is missing)
    import safetensors  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"crnn_ext.ocr needs {error.name}, which is not installed: install crnn_ext with its extra [ocr]",
        name=error.name,
    ) from error

from .architecture import Architecture
from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from .decoding import BeamSearch, Decoded, Decoding, greedy
from .images import ImageError
from .preprocessing import Preprocessing
from .recognizer import Alternative, Character, Reading, Recognizer

__all__ = [
    "Alternative",
    "Architecture",
    "BeamSearch",
    "Character",
    "Checkpoint",
    "CheckpointError",
    "Decoded",
    "Decoding",
    "ImageError",
    "Preprocessing",
    "Reading",
    "Recognizer",
    "greedy",
    "load_checkpoint",
    "save_checkpoint",
]
