"""CTC for PyTorch: a fused, exact loss, decoders and CRNN text-recognition networks.

`crnn_ext.ctc`: the operators. `crnn_ext.text`: character sets, lexicons, language models. `crnn_ext.models`:
the networks. `crnn_ext.load`: opens a checkpoint for reading images.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crnn_ext import ctc, models, text

if TYPE_CHECKING:
    from crnn_ext.ocr import Recognizer

__version__ = "0.1.0"
__all__ = ["__version__", "ctc", "load", "models", "text"]


def load(checkpoint: str | Path, *, device: str | torch.device = "cpu") -> "Recognizer":
    """Loads the recognizer of a checkpoint file, with its network on a device. Safe for untrusted files.

    Raises:
        CheckpointError: if the file cannot be opened, is damaged, or is not a checkpoint.
        ImportError: if a package of the extra `crnn_ext[ocr]` is not installed.
        RuntimeError: if torch cannot use the device.
    """
    # Imported here: the other modules do not need the packages of the extra `ocr`.
    from crnn_ext.ocr import Recognizer

    return Recognizer.load(checkpoint, device=device)
