"""Reading text in images with a trained network: batches, decoding, alignment plots."""

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
