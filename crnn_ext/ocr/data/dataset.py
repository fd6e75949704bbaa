"""Torch dataset of preprocessed lines, and its collate function."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from crnn_ext._arguments import check_int
from crnn_ext.ocr.images import ImageError, Preprocessing

from .source import DataIssue, LineSource

if TYPE_CHECKING:  # needs OpenCV, which is optional
    from .augment import Augmentation


# Scans are reduced to this multiple of the network's rows before augmentation; more rows have no effect.
_AUGMENTED_ROWS = 2


class Sample(NamedTuple):
    """A line: the network input, float32 `(channels, height, W)`, its label and its name."""

    image: Tensor
    label: str
    name: str


class Batch(NamedTuple):
    """A batch of N lines.

    Attributes:
        images: float32 `(N, channels, height, W)`; lines narrower than W are padded with zeros on the right.
        widths: int64 `(N,)`: the columns of each line.
        labels, names: the label and the name of each line.
        unreadable: the lines that are missing in the batch because their images cannot be read.
    """

    images: Tensor
    widths: Tensor
    labels: list[str]
    names: list[str]
    unreadable: list[DataIssue]


class LineDataset(Dataset[Sample | DataIssue]):
    """The preprocessed lines of a source, for a torch DataLoader with `collate`.

    An unreadable image gives a DataIssue, which `collate` passes on: an exception in a worker process would
    end the epoch.

    The augmentation of a line depends only on the seed, the epoch and the index of the line. It is the same
    in every process, in any order, and after a restart.

    Args:
        source: the lines.
        preprocessing: the preprocessing of the images.
        augmentation: the augmentation, applied before the preprocessing.
        seed: seed of the augmentation, at least 0.
        epoch: epoch of the augmentation, at least 0.

    Raises:
        TypeError, ValueError: the seed or the epoch is invalid.
    """

    def __init__(
        self,
        source: LineSource,
        preprocessing: Preprocessing,
        augmentation: "Augmentation | None" = None,
        *,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        check_int(f"{type(self).__name__}: seed", seed, 0, (1 << 63) - 1)
        self.source = source
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self._seed = seed
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, from 0. Only worker processes that start afterwards use it.

        Raises:
            TypeError, ValueError: the epoch is negative.
        """
        check_int("set_epoch: epoch", epoch, 0, (1 << 63) - 1)
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | DataIssue:
        name = self.source.names[index]
        try:
            image = self.source.image(index, self.preprocessing.mode)
            if self.augmentation is not None:
                random = np.random.default_rng([self._seed, self._epoch, index])
                pixels = np.asarray(_limit_rows(image, _AUGMENTED_ROWS * self.preprocessing.height))
                image = Image.fromarray(self.augmentation(pixels, random))
            return Sample(self.preprocessing(image), self.source.labels[index], name)
        except ImageError as error:
            return DataIssue(name, "unreadable image", str(error))


def _limit_rows(image: Image.Image, rows: int) -> Image.Image:
    """Shrinks an image that has more rows. The columns follow the aspect ratio, rounded up."""
    if image.height <= rows:
        return image
    return image.resize((-(-image.width * rows // image.height), rows), Image.Resampling.BILINEAR)


def collate(items: Sequence[Sample | DataIssue]) -> Batch:
    """Collates items of a `LineDataset` into a batch. If no line is readable, N and W are 0."""
    samples = [item for item in items if isinstance(item, Sample)]
    unreadable = [item for item in items if isinstance(item, DataIssue)]
    widths = torch.tensor([sample.image.shape[-1] for sample in samples], dtype=torch.int64)
    channels, height = samples[0].image.shape[:2] if samples else (1, 1)
    images = torch.zeros(len(samples), channels, height, max(widths.tolist(), default=0))
    for row, sample in zip(images, samples, strict=True):
        row[..., : sample.image.shape[-1]] = sample.image
    return Batch(
        images,
        widths,
        [sample.label for sample in samples],
        [sample.name for sample in samples],
        unreadable,
    )
