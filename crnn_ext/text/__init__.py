"""What decoding knows of texts: the characters of a network's classes."""

from crnn_ext.text.charset import Charset

__all__ = ["Charset"]
