"""Batches of lines of similar width, bounded by their pixels."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from crnn_ext.ocr.images import ImageError, Preprocessing
from crnn_ext.ocr.system.arguments import check_int

from .source import DataIssue, LineSource

if TYPE_CHECKING:  # it needs OpenCV, and most data sets are read without
    from .augment import Augmentation


# Scans are augmented at no more than so many times the rows that the network reads: it would not see more.
_AUGMENTED_ROWS = 2


class Sample(NamedTuple):
    """A line as the network reads it: float32 `(channels, height, W)`, its label and its name."""

    image: Tensor
    label: str
    name: str


class Batch(NamedTuple):
    """N lines.

    Attributes:
        images: float32 `(N, channels, height, W)`; on the right of lines narrower than W are zeros.
        widths: int64 `(N,)`: the columns of each line.
        labels, names: of each line.
        unreadable: the lines that would be in the batch if their images could be read.
    """

    images: Tensor
    widths: Tensor
    labels: list[str]
    names: list[str]
    unreadable: list[DataIssue]


class LineDataset(Dataset[Sample | DataIssue]):
    """The preprocessed lines of a source, for a torch DataLoader, together with `collate`.

    An image that cannot be read gives a DataIssue, which `collate` hands on: an error in a worker process would
    end the epoch.

    With an augmentation, each epoch draws its distortions of a line from the seed, the epoch and the index of
    the line alone: it is the same in every process, in any order and after a break.

    Args:
        source: the lines.
        preprocessing: what is done to their images.
        augmentation: what is done to them before.
        seed, epoch: from 0; what the augmentation draws from.

    Raises:
        TypeError, ValueError: the seed or the epoch breaks its rule.
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
        check_int(type(self).__name__, "seed", seed, 0, (1 << 63) - 1)
        self.source = source
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self._seed = seed
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 0. A worker process sees it if it starts afterwards.

        Raises:
            TypeError, ValueError: the epoch is below 0.
        """
        check_int("set_epoch", "epoch", epoch, 0, (1 << 63) - 1)
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | DataIssue:
        name = self.source.names[index]
        try:
            image = self.source.image(index, self.preprocessing.mode)
            if self.augmentation is not None:
                random = np.random.default_rng([self._seed, self._epoch, index])
                pixels = np.asarray(_at_most(image, _AUGMENTED_ROWS * self.preprocessing.height))
                image = Image.fromarray(self.augmentation(pixels, random))
            return Sample(self.preprocessing(image), self.source.labels[index], name)
        except ImageError as error:
            return DataIssue(name, "unreadable image", str(error))


def _at_most(image: Image.Image, rows: int) -> Image.Image:
    """Shrunk to so many rows if it has more, to no fewer columns than its aspect ratio has."""
    if image.height <= rows:
        return image
    return image.resize((-(-image.width * rows // image.height), rows), Image.Resampling.BILINEAR)


def collate(items: Sequence[Sample | DataIssue]) -> Batch:
    """The batch of what `LineDataset` gives. If no line can be read, N and W are 0."""
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


class BucketBatchSampler(Sampler[list[int]]):
    """The batches of each epoch, as lists of indices, for one of several processes (ranks).

    Lines are sorted into buckets of similar width, and the batches are drawn within each bucket. Their number
    is the same in every epoch and on every rank. Each line is in one batch of one rank. Where the number of
    batches is no multiple of `world_size * accumulate`, some are cut in two; only where all lines are alone, some
    come twice. The batches of a step, `accumulate` of each rank, are the same however they are spread.

    What is drawn depends on the seed and the epoch alone. So a process that was stopped goes on where it was
    with `set_epoch`, and a DataLoader may fetch batches ahead without moving it.

    Args:
        widths: the columns of each line after preprocessing; 0 leaves a line out.
        max_pixels: the budget: the pixels of a batch, which are `height` times its lines times the columns of
            the widest of them. A line that is over the budget is alone in its batch.
        height: rows of each line after preprocessing.
        seed: draws lines and batches; None for the same batches in every epoch, from wide to narrow.
        rank, world_size: which of how many processes this is.
        accumulate: batches of each rank that make one step.

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message names it and the value.
    """

    def __init__(
        self,
        widths: Sequence[int],
        max_pixels: int,
        *,
        height: int,
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        owner = type(self).__name__
        check_int(owner, "max_pixels", max_pixels, 1, 1 << 50)
        check_int(owner, "height", height, 1, 1 << 20)
        check_int(owner, "seed", 0 if seed is None else seed, 0, (1 << 63) - 1)
        check_int(owner, "world_size", world_size, 1, 1 << 20)
        check_int(owner, "rank", rank, 0, world_size - 1)
        check_int(owner, "accumulate", accumulate, 1, 1 << 20)
        columns = np.array(widths, np.int64)
        if columns.ndim != 1 or not (columns > 0).any() or columns.min() < 0:
            raise ValueError(f"{owner}: widths must be numbers from 0 on, and not all of them 0")
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._buckets = _buckets(columns, max(1, max_pixels // height))
        batches = sum(-(-len(lines) // size) for lines, size in self._buckets)
        self.batches_per_epoch = -(-batches // (world_size * accumulate)) * accumulate
        self.set_epoch(0)

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Chooses the epoch, from 0, and how many of its batches this rank has had already.

        Raises:
            TypeError, ValueError: the position is not in [0, `batches_per_epoch`], or the epoch below 0.
        """
        check_int("set_epoch", "epoch", epoch, 0, (1 << 63) - 1)
        check_int("set_epoch", "position", position, 0, self.batches_per_epoch)
        self._epoch, self._position = epoch, position

    def __len__(self) -> int:
        return self.batches_per_epoch - self._position

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches()[self._rank :: self._world_size][self._position :]:
            yield batch.tolist()

    def _batches(self) -> list[npt.NDArray[np.int64]]:
        """Those of all ranks; each takes its turn."""
        random = None if self._seed is None else np.random.default_rng([self._seed, self._epoch])
        batches = []
        for lines, size in self._buckets:
            drawn = lines if random is None else random.permutation(lines)
            batches += [drawn[first : first + size] for first in range(0, len(drawn), size)]
        for copy in range(self.batches_per_epoch * self._world_size - len(batches)):
            largest = max(range(len(batches)), key=lambda index: len(batches[index]))
            lines = batches[largest]
            if len(lines) > 1:
                batches[largest] = lines[: len(lines) // 2]
                batches.insert(largest + 1, lines[len(lines) // 2 :])
            else:
                batches.append(batches[copy])
        if random is not None:
            batches = [batches[index] for index in random.permutation(len(batches))]
        return batches


def _buckets(columns: npt.NDArray[np.int64], budget: int) -> list[tuple[npt.NDArray[np.int64], int]]:
    """Lines of similar width, from wide to narrow, and how many of each bucket keep to the budget in columns.

    There are about as many buckets as batches in each: few columns are padding, and there is much to draw
    from.
    """
    order = np.argsort(-columns, kind="stable")[: np.count_nonzero(columns)]
    batches = max(1, round((columns.sum() / budget) ** 0.5))
    buckets = []
    while len(order):
        size = max(1, budget // int(columns[order[0]]))
        buckets.append((order[: size * batches], size))
        order = order[size * batches :]
    return buckets
