"""CTC decoders of other packages, each with its best settings.

The packages are optional, so they are imported where they are used. The input of each decoder (probabilities,
another order of the classes, numpy arrays) is prepared outside the timed call.
"""

import contextlib
import importlib.metadata
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from posteriors import Posteriors

# Limits for the memory of a peer, and for the candidates of a decoder in Python.
MAX_BYTES, MAX_PYTHON_CANDIDATES = 10e9, 1e7


class Search(NamedTuple):
    """A beam search with its pruning, or best-path decoding if beam_size is None."""

    beam_size: int | None
    token_top_k: int | None = None
    token_min_logp: float | None = None
    beam_threshold: float | None = None

    def __str__(self) -> str:
        if self.beam_size is None:
            return "best path"
        values = {
            "top": self.token_top_k,
            "ln p >=": self.token_min_logp,
            "within": self.beam_threshold,
        }
        parts = [f"{name} {value:.3g}" for name, value in values.items() if value is not None]
        return ", ".join(parts) or "none"


class Decoder(NamedTuple):
    """A decoder with its prepared input."""

    call: Callable[[], Any]
    labels_of: Callable[[Any], list[int]]
    """Converts the result of the call to labels."""

    def labels(self) -> list[int]:
        return self.labels_of(self.call())


class SkippedError(Exception):
    """A peer skips this search; the message says why."""


# The first of one character per class. None is white space, which some peers treat as a word boundary.
_FIRST_CHARACTER = 0x4E00


def _characters(classes: int) -> list[str]:
    return [chr(_FIRST_CHARACTER + index) for index in range(classes)]


def _indices(text: str) -> list[int]:
    return [ord(character) - _FIRST_CHARACTER for character in text]


def fast_ctc_decode(item: Posteriors, search: Search) -> Decoder:
    """fast-ctc-decode. It only prunes by probability, with a threshold below 1 / C."""
    from fast_ctc_decode import beam_search, viterbi_search

    classes = item.scores.shape[1]
    order = [item.blank, *(index for index in range(classes) if index != item.blank)]
    probs = item.log_probs[:, order].exp().numpy()
    alphabet = "".join(_characters(classes))

    def labels(result: tuple[str, object]) -> list[int]:
        return [order[index] for index in _indices(result[0])]

    beam_size = search.beam_size
    if beam_size is None:
        return Decoder(lambda: viterbi_search(probs, alphabet), labels)
    cut = 0.0 if search.token_min_logp is None else math.exp(search.token_min_logp)
    # Each candidate of each frame allocates a node with an entry per class.
    max_bytes = 4 * classes * beam_size * int((probs >= cut).sum())
    if max_bytes > MAX_BYTES:
        raise SkippedError(f"may take {max_bytes / 1e9:.0f} GB")
    return Decoder(lambda: beam_search(probs, alphabet, beam_size, cut), labels)


def flashlight_text(item: Posteriors, search: Search) -> Decoder:
    """The decoder behind torchaudio's ctc_decoder, without a lexicon and with log_add."""
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconFreeDecoder,
        LexiconFreeDecoderOptions,
        ZeroLM,
    )

    frames, classes = item.scores.shape
    log_probs = item.log_probs.contiguous().numpy()
    options = LexiconFreeDecoderOptions(
        beam_size=search.beam_size,
        # Includes the blank.
        beam_size_token=classes if search.token_top_k is None else min(search.token_top_k + 1, classes),
        beam_threshold=math.inf if search.beam_threshold is None else search.beam_threshold,
        lm_weight=0,
        sil_score=0,
        log_add=True,
        criterion_type=CriterionType.CTC,
    )
    decoder = LexiconFreeDecoder(options, ZeroLM(), -1, item.blank, [])

    def labels(result: list[Any]) -> list[int]:
        # The path starts and ends with a silence token.
        path = torch.unique_consecutive(torch.tensor(result[0].tokens[1:-1]))
        return path[path != item.blank].tolist()

    return Decoder(lambda: decoder.decode(log_probs.ctypes.data, frames, classes), labels)


def pyctcdecode(item: Posteriors, search: Search) -> Decoder:
    """pyctcdecode. It applies log_softmax itself and always keeps the best class of a frame."""
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)  # silences warnings about KenLM and spaces
    from pyctcdecode import build_ctcdecoder

    frames, classes = item.scores.shape
    if search.token_min_logp is None and frames * search.beam_size * classes > MAX_PYTHON_CANDIDATES:
        raise SkippedError("may take minutes")
    labels = _characters(classes)
    labels[item.blank] = ""
    decoder, scores = build_ctcdecoder(labels), item.scores.numpy()
    options = {
        "beam_width": search.beam_size,
        "token_min_logp": -math.inf if search.token_min_logp is None else search.token_min_logp,
        "beam_prune_logp": -math.inf if search.beam_threshold is None else -search.beam_threshold,
    }
    return Decoder(lambda: decoder.decode(scores, **options), _indices)


# By package name.
PEERS: dict[str, Callable[[Posteriors, Search], Decoder]] = {
    "fast-ctc-decode": fast_ctc_decode,
    "flashlight-text": flashlight_text,
    "pyctcdecode": pyctcdecode,
}


def installed() -> dict[str, str]:
    """The installed peers and their versions."""
    found = {}
    for name in PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
