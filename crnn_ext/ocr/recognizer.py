"""Images in, texts out."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from crnn_ext.ctc import ctc_loss, greedy_decode
from crnn_ext.text import Charset

from .architecture import Network
from .checkpoint import load_checkpoint
from .images import ImageError, ImageSource, read_image
from .preprocessing import MAX_COLUMNS, Preprocessing

# Fewer where the images are wide: a batch has at most MAX_COLUMNS in all.
MAX_BATCH_SIZE = 16


class Character(NamedTuple):
    """A character, and the pixel columns `[start, end)` of the image, in its own size, at which it was read.

    These are the frames in which the network named it, which are often fewer than the character is wide.
    """

    character: str
    start: int
    end: int


class Reading(NamedTuple):
    """The text in an image.

    `confidence` is P(text | image), in [0, 1]: the probability of the text under the network, all its
    alignments added up.
    """

    text: str
    confidence: float
    characters: list[Character]


class Prepared(NamedTuple):
    """An image as the network reads it, float32 `(channels, height, W)`, and how wide it was before."""

    pixels: Tensor
    width: int


class Recognizer:
    """Reads the text in images of any size by taking the most probable class of each frame.

    Only images of equal width after preprocessing are read in one batch: none is padded, so the text of an
    image does not depend on the images that it is read with.

    Args:
        network: maps `(N, channels, height, W)` to logits `(T, N, C)`; it is put into evaluation mode.
        charset: the characters of its classes.
        preprocessing: with which the network was trained.
    """

    def __init__(self, network: Network, charset: Charset, preprocessing: Preprocessing) -> None:
        self.network = network.eval()
        self.charset = charset
        self.preprocessing = preprocessing

    @classmethod
    def load(cls, checkpoint: str | Path) -> "Recognizer":
        """The recognizer of a checkpoint file, on the CPU.

        Raises:
            CheckpointError: as `load_checkpoint`.
        """
        network, _, charset, preprocessing = load_checkpoint(checkpoint)
        return cls(network, charset, preprocessing)

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
        by_columns = defaultdict(list)
        for index, image in enumerate(images):
            by_columns[image.pixels.shape[-1]].append(index)
        readings: dict[int, Reading] = {}
        for columns, indices in by_columns.items():
            batch_size = min(MAX_BATCH_SIZE, MAX_COLUMNS // columns)
            for first in range(0, len(indices), batch_size):
                batch = indices[first : first + batch_size]
                readings.update(zip(batch, self._read_batch([images[index] for index in batch]), strict=True))
        return [readings[index] for index in range(len(images))]

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """The network's logits `(T, N, C)` for images of equal width `(N, channels, height, W)`.

        Raises:
            ValueError: they are not finite.
        """
        device = next(self.network.parameters()).device
        logits: Tensor = self.network(pixels.to(device))
        if not logits.isfinite().all():
            raise ValueError("the network gave logits that are not finite: its weights are unusable")
        return logits

    @torch.inference_mode()
    def _read_batch(self, images: Sequence[Prepared]) -> list[Reading]:
        logits = self.logits(torch.stack([image.pixels for image in images]))
        frames, samples, _ = logits.shape
        best = greedy_decode(logits, blank=self.charset.blank)
        texts = self.charset.decode(best.tokens, best.lengths)
        losses = ctc_loss(
            logits, best.tokens, [frames] * samples, best.lengths, self.charset.blank, reduction="none"
        )
        # Rounding can leave the loss of a certain text a little below 0.
        confidences = losses.neg().exp().clamp(max=1).tolist()
        spans = zip(best.starts.tolist(), best.ends.tolist(), strict=True)
        return [
            Reading(text, confidence, _characters(text, starts, ends, frames, image.width))
            for image, text, confidence, (starts, ends) in zip(images, texts, confidences, spans, strict=True)
        ]


def _characters(
    text: str, starts: Sequence[int], ends: Sequence[int], frames: int, width: int
) -> list[Character]:
    """Turns spans of frames into spans of columns; the frames divide the width evenly among them."""
    return [
        # To the outside, so that no span is empty.
        Character(character, start * width // frames, -(-end * width // frames))
        for character, start, end in zip(text, starts, ends, strict=False)  # spans are padded to the frames
    ]
