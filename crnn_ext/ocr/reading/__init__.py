"""Recognition of text in images: recognizer, decoding, plots of the alignment."""

from .decoding import BeamSearch, DecodedText, Decoding, greedy
from .recognizer import Alternative, Character, Reading, Recognizer

__all__ = [
    "Alternative",
    "BeamSearch",
    "Character",
    "DecodedText",
    "Decoding",
    "Reading",
    "Recognizer",
    "greedy",
]
