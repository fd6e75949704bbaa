"""Grapheme clusters: what readers perceive as single characters."""

import regex

_GRAPHEME = regex.compile(r"\X")


def graphemes(text: str) -> list[str]:
    """The extended grapheme clusters of a text (Unicode's UAX #29), in order."""
    clusters: list[str] = _GRAPHEME.findall(text)
    return clusters
