"""CTC for PyTorch: a fused, exact loss, decoders and CRNN text-recognition networks.

`import crnn_ext.ctc` for the operators, `crnn_ext.text` for character sets, `crnn_ext.models` for networks.
"""

from crnn_ext import ctc, models, text

__version__ = "0.1.0"
__all__ = ["__version__", "ctc", "models", "text"]
