"""CTC for PyTorch: a fused, exact loss, decoders and CRNN text-recognition networks.

`import crnn_ext.ctc` for the operators, `crnn_ext.text` for character sets, `crnn_ext.models` for networks;
`crnn_ext.load` opens a checkpoint to read images with.
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
    """The recognizer of a checkpoint file, with its network on a device. The file need not be trusted.

    Raises:
        CheckpointError: the file cannot be opened, is damaged or foreign.
        ImportError: a package of the extra `crnn_ext[ocr]` is not installed.
        RuntimeError: torch cannot use the device.
    """
    # Packages that only reading needs are imported by who reads.
    from crnn_ext.ocr import Recognizer

    return Recognizer.load(checkpoint, device=device)
