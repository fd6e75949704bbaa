"""The recognizer: reads the text in images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from crnn_ext.ocr.checkpoints import Network, load_checkpoint
from crnn_ext.ocr.images import ImageError, ImageSource, read_image
from crnn_ext.ocr.images.preprocessing import MAX_COLUMNS, Preprocessing
from crnn_ext.text import Charset

from .decoding import DecodedText, Decoding, greedy

Source = TypeVar("Source", bound=ImageSource)
Item = TypeVar("Item")

# Number of preprocessed images held in memory at a time: enough to form batches of similar width.
LOOKAHEAD = 256
# Batches of wide images are smaller: a batch has at most MAX_COLUMNS columns in total.
MAX_BATCH_SIZE = 16
# Ratio of the widest to the narrowest image of a batch; it limits the time spent on padding.
MAX_WIDTH_RATIO = 1.25


class Character(NamedTuple):
    """A character and its position: the pixel columns `[start, end)` of the original image.

    They correspond to the frames in which the network emitted the character, which often cover only part of
    its width. `confidence` is the geometric mean of the character's probability over them, in [0, 1].
    """

    character: str
    start: int
    end: int
    confidence: float


class Alternative(NamedTuple):
    """An alternative text of an image, with its confidence."""

    text: str
    confidence: float


class Reading(NamedTuple):
    """The text in an image.

    `confidence` is P(text | image), in [0, 1]: the probability of the text under the network, summed over all
    alignments. `alternatives` are further texts, best first, if the decoding returns any. `found` is False if
    a search found no text that the lexicon allows; the text is then empty, with confidence 0. If `found` is
    True, an empty text means that the image contains no text.
    """

    text: str
    confidence: float
    characters: list[Character]
    alternatives: list[Alternative]
    found: bool = True


class PreprocessedImage(NamedTuple):
    """The network input for an image, float32 `(channels, height, W)`, and the original width."""

    pixels: Tensor
    width: int


class Recognizer:
    """Reads the text in images of any size.

    Images of similar width after preprocessing form a batch; the narrower ones are padded. The text of an
    image does not depend on the other images of its batch, up to rounding: of float32 on the CPU, and of TF32
    on a GPU unless torch.backends.cudnn forbids it.

    Args:
        network: maps `(N, channels, height, W)` to logits `(T, N, C)`; it is set to evaluation mode.
        charset: the characters of its classes.
        preprocessing: the preprocessing with which the network was trained.
        decoding: maps logits to texts: `greedy` or a `BeamSearch`. It may be changed at any time.
    """

    def __init__(
        self, network: Network, charset: Charset, preprocessing: Preprocessing, decoding: Decoding = greedy
    ) -> None:
        self.network = network.eval()
        self.charset = charset
        self.preprocessing = preprocessing
        self.decoding = decoding

    @classmethod
    def load(cls, checkpoint: str | Path, *, device: str | torch.device = "cpu") -> "Recognizer":
        """Loads the recognizer from a checkpoint file, with its network on the device.

        Raises:
            CheckpointError: as `load_checkpoint`.
            RuntimeError: torch cannot use the device.
        """
        loaded = load_checkpoint(checkpoint)
        return cls(loaded.network, loaded.charset, loaded.preprocessing).to(device)

    def to(self, device: str | torch.device) -> "Recognizer":
        """Moves the network to the device and returns this recognizer.

        Raises:
            RuntimeError: torch cannot use the device.
        """
        self.network.to(device)
        return self

    def __call__(self, images: Iterable[ImageSource]) -> list[Reading]:
        """Reads PIL images, uint8 arrays or image files, also mixed, and returns their texts in order.

        Raises:
            ImageError: an image cannot be read; the message names it.
            TypeError, ValueError: as `stream`.
        """
        readings = []
        for index, (image, reading) in enumerate(self.stream(images)):
            if isinstance(reading, ImageError):
                name = f"{image}" if isinstance(image, str | Path) else f"images[{index}]"
                raise ImageError(f"{name}: {reading}") from reading
            readings.append(reading)
        return readings

    @overload
    def stream(self, images: Iterable[Source]) -> Iterator[tuple[Source, Reading | ImageError]]: ...

    @overload
    def stream(
        self, images: Iterable[Item], open_item: Callable[[Item], ImageSource]
    ) -> Iterator[tuple[Item, Reading | ImageError]]: ...

    def stream(
        self, images: Iterable[Any], open_item: Callable[[Any], ImageSource] | None = None
    ) -> Iterator[tuple[Any, Reading | ImageError]]:
        """Reads any number of images in bounded memory, and batches by width within each 256 images.

        Args:
            images: the images, in any form that `preprocess` takes. If the items are not images, pass
                `open_item`. Items are consumed lazily, at most 256 ahead of the results.
            open_item: a function that opens an item; it is called once for each item, lazily.

        Yields:
            Each item in order, with its reading, or with the error if the image cannot be read.

        Raises:
            TypeError, ValueError: `images` is a single image; and as `read_image` and `read`.
        """
        if _is_single(images):
            raise TypeError(f"images must be an iterable of images, got a single {type(images).__name__}")
        return self._stream(iter(images), open_item or (lambda image: image))

    def _stream(
        self, images: Iterator[Any], open_item: Callable[[Any], ImageSource]
    ) -> Iterator[tuple[Any, Reading | ImageError]]:
        while items := list(islice(images, LOOKAHEAD)):
            yield from zip(items, self._read_or_errors(items, open_item), strict=True)

    def _read_or_errors(
        self, items: Sequence[Any], open_item: Callable[[Any], ImageSource]
    ) -> list[Reading | ImageError]:
        preprocessed: list[PreprocessedImage] = []
        errors: dict[int, ImageError] = {}
        for index, item in enumerate(items):
            try:
                preprocessed.append(self.preprocess(open_item(item)))
            except ImageError as error:
                # Drop the traceback: its frames would keep the images alive as long as the error.
                errors[index] = error.with_traceback(None)
        readings = iter(self.read(preprocessed))
        return [errors[index] if index in errors else next(readings) for index in range(len(items))]

    def preprocess(self, image: ImageSource) -> PreprocessedImage:
        """Preprocesses an image for `read`.

        Raises:
            ImageError, TypeError, ValueError: as `Preprocessing`.
        """
        opened = read_image(image, self.preprocessing.mode)
        return PreprocessedImage(self.preprocessing(opened), opened.width)

    def read(self, images: Sequence[PreprocessedImage]) -> list[Reading]:
        """Reads preprocessed images and returns their texts in order.

        Raises:
            ValueError: the network returned logits that are not finite.
        """
        readings: dict[int, Reading] = {}
        for batch in _batches([image.pixels.shape[-1] for image in images]):
            readings.update(zip(batch, self._read_batch([images[index] for index in batch]), strict=True))
        return [readings[index] for index in range(len(images))]

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def logits(self, pixels: Tensor, widths: Sequence[int] | None = None) -> Tensor:
        """Returns the logits `(T, N, C)` for images `(N, channels, height, W)`.

        Args:
            pixels: the images.
            widths: the columns of each image without padding; None if all have W columns.

        Raises:
            ValueError: the logits are not finite.
        """
        logits: Tensor = self.network(pixels.to(self.device), widths)
        if not logits.isfinite().all():
            raise ValueError("the network returned logits that are not finite: its weights are unusable")
        return logits

    @torch.inference_mode()
    def _read_batch(self, images: Sequence[PreprocessedImage]) -> list[Reading]:
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


def _is_single(images: object) -> bool:
    """Whether the argument is a single image, or not an iterable."""
    if isinstance(images, np.ndarray):
        return images.ndim < 3 or (images.ndim == 3 and images.shape[-1] in (3, 4))
    return isinstance(images, str | bytes | BytesIO | Image.Image) or not isinstance(images, Iterable)


def _batches(widths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of images of similar width, as lists of indices, from the narrowest to the widest."""
    batch: list[int] = []
    for index in sorted(range(len(widths)), key=widths.__getitem__):
        width = widths[index]
        full = len(batch) == MAX_BATCH_SIZE or (len(batch) + 1) * width > MAX_COLUMNS
        if batch and (full or width > MAX_WIDTH_RATIO * widths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def character_spans(
    text: str,
    starts: Sequence[int],
    ends: Sequence[int],
    confidences: Sequence[float],
    frames: int,
    width: int,
) -> list[Character]:
    """Maps the frames `[start, end)` of each character to pixel columns; the sequences may be padded."""
    return [
        # All frames cover the same number of columns. Rounding outwards keeps every span non-empty.
        Character(character, start * width // frames, -(-end * width // frames), confidence)
        for character, start, end, confidence in zip(text, starts, ends, confidences, strict=False)
    ]


def _reading(texts: Sequence[DecodedText], frames: int, width: int) -> Reading:
    if not texts:
        return Reading("", 0.0, [], [], found=False)
    best, *others = texts
    characters = character_spans(best.text, best.starts, best.ends, best.confidences, frames, width)
    alternatives = [Alternative(other.text, other.probability) for other in others]
    return Reading(best.text, best.probability, characters, alternatives)
