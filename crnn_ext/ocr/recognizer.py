"""Images in, texts out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from crnn_ext.text import Charset

from .architecture import Network
from .checkpoint import load_checkpoint
from .decoding import Decoded, Decoding, greedy
from .images import ImageError, ImageSource, read_image
from .preprocessing import MAX_COLUMNS, Preprocessing

# Fewer where the images are wide: a batch has at most MAX_COLUMNS in all.
MAX_BATCH_SIZE = 16
# How much wider than its narrowest image the widest of a batch may be: padding takes time and tells nothing.
MAX_STRETCH = 1.25


class Character(NamedTuple):
    """A character, and the pixel columns `[start, end)` of the image, in its own size, at which it was read.

    These are the frames in which the network named it, which are often fewer than the character is wide.
    """

    character: str
    start: int
    end: int


class Alternative(NamedTuple):
    """Another text that an image may have, with its confidence."""

    text: str
    confidence: float


class Reading(NamedTuple):
    """The text in an image; empty, with confidence 0, if the search found none that the lexicon allows.

    `confidence` is P(text | image), in [0, 1]: the probability of the text under the network, all its
    alignments added up. `alternatives` are further texts, if the decoding gives any, best first.
    """

    text: str
    confidence: float
    characters: list[Character]
    alternatives: list[Alternative]


class Prepared(NamedTuple):
    """An image as the network reads it, float32 `(channels, height, W)`, and how wide it was before."""

    pixels: Tensor
    width: int


class Recognizer:
    """Reads the text in images of any size.

    Images of similar width after preprocessing are read in one batch, in which the narrower ones are padded.
    The text of an image does not depend on the images that it is read with.

    Args:
        network: maps `(N, channels, height, W)` to logits `(T, N, C)`; it is put into evaluation mode.
        charset: the characters of its classes.
        preprocessing: with which the network was trained.
        decoding: from logits to texts: `greedy`, or a `BeamSearch`. It may be changed at any time.
    """

    def __init__(
        self, network: Network, charset: Charset, preprocessing: Preprocessing, decoding: Decoding = greedy
    ) -> None:
        self.network = network.eval()
        self.charset = charset
        self.preprocessing = preprocessing
        self.decoding = decoding

    @classmethod
    def load(cls, checkpoint: str | Path) -> "Recognizer":
        """The recognizer of a checkpoint file, on the CPU.

        Raises:
            CheckpointError: as `load_checkpoint`.
        """
        loaded = load_checkpoint(checkpoint)
        return cls(loaded.network, loaded.charset, loaded.preprocessing)

    def __call__(self, images: Iterable[ImageSource]) -> list[Reading]:
        """Reads PIL images, uint8 arrays or image files, in any mixture, and returns their texts in order.

        Raises:
            ImageError: an image cannot be read; the message names it.
            TypeError, ValueError: as `read_image`.
        """
        prepared = []
        for index, image in enumerate(images):
            try:
                prepared.append(self.prepare(image))
            except ImageError as error:
                name = f"{image}" if isinstance(image, str | Path) else f"images[{index}]"
                raise ImageError(f"{name}: {error}") from error
        return self.read(prepared)

    def prepare(self, image: ImageSource) -> Prepared:
        """Preprocesses one image, for `read`.

        Raises:
            ImageError, TypeError, ValueError: as `Preprocessing`.
        """
        opened = read_image(image, self.preprocessing.mode)
        return Prepared(self.preprocessing(opened), opened.width)

    def read(self, images: Sequence[Prepared]) -> list[Reading]:
        """The texts of preprocessed images, in order.

        Raises:
            ValueError: the network gave logits that are not finite.
        """
        readings: dict[int, Reading] = {}
        for batch in _batches([image.pixels.shape[-1] for image in images]):
            readings.update(zip(batch, self._read_batch([images[index] for index in batch]), strict=True))
        return [readings[index] for index in range(len(images))]

    @torch.inference_mode()
    def logits(self, pixels: Tensor, widths: Sequence[int] | None = None) -> Tensor:
        """The network's logits `(T, N, C)` for images `(N, channels, height, W)` of these widths, or all W.

        Raises:
            ValueError: they are not finite.
        """
        device = next(self.network.parameters()).device
        logits: Tensor = self.network(pixels.to(device), widths)
        if not logits.isfinite().all():
            raise ValueError("the network gave logits that are not finite: its weights are unusable")
        return logits

    @torch.inference_mode()
    def _read_batch(self, images: Sequence[Prepared]) -> list[Reading]:
        widths = [image.pixels.shape[-1] for image in images]
        widest = max(widths)
        pixels = torch.stack([pad(image.pixels, (0, widest - image.pixels.shape[-1])) for image in images])
        logits = self.logits(pixels, None if min(widths) == widest else widths)
        lengths = self.network.output_lengths(widths)
        texts = self.decoding(logits, lengths, self.charset)
        return [
            _reading(decoded, frames, image.width)
            for decoded, frames, image in zip(texts, lengths.tolist(), images, strict=True)
        ]


def _batches(widths: Sequence[int]) -> Iterator[list[int]]:
    """Which images are read together: their indices, from the narrowest to the widest."""
    batch: list[int] = []
    for index in sorted(range(len(widths)), key=widths.__getitem__):
        width = widths[index]
        full = len(batch) == MAX_BATCH_SIZE or (len(batch) + 1) * width > MAX_COLUMNS
        if batch and (full or width > MAX_STRETCH * widths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _reading(texts: Sequence[Decoded], frames: int, width: int) -> Reading:
    if not texts:
        return Reading("", 0.0, [], [])
    best, *others = texts
    characters = [
        # Frames divide the width evenly among them; to the outside, so that no span is empty.
        Character(character, start * width // frames, -(-end * width // frames))
        for character, start, end in zip(best.text, best.starts, best.ends, strict=False)  # spans are padded
    ]
    alternatives = [Alternative(other.text, other.probability) for other in others]
    return Reading(best.text, best.probability, characters, alternatives)
