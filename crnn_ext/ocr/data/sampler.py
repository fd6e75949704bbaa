"""Batch sampler that groups lines of similar width and bounds the pixels of a batch."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from crnn_ext._arguments import check_int


class BucketBatchSampler(Sampler[list[int]]):
    """The batches of each epoch, as lists of indices, for one of several processes (ranks).

    Lines are grouped into buckets of similar width, and batches are drawn within each bucket. The number of
    batches is the same in every epoch and on every rank. Each line is in one batch of one rank. If the number
    of batches is not a multiple of `world_size * accumulate`, some batches are split in two; if all batches
    have a single line, some are repeated instead. A step consists of `accumulate` batches on each rank; its
    batches do not depend on how they are distributed over ranks.

    The batches depend only on the seed and the epoch. A stopped process therefore resumes with `set_epoch`,
    and a DataLoader may prefetch batches without changing the position.

    Args:
        widths: the columns of each line after preprocessing; lines with 0 columns are skipped.
        max_pixels: the budget of a batch in pixels: `height` times the number of lines times the columns of
            the widest line. A line that exceeds the budget is alone in its batch.
        height: rows of each line after preprocessing.
        seed: seed of the random order; None gives the same batches in every epoch, from wide to narrow.
        rank: the rank of this process.
        world_size: the number of processes.
        accumulate: the number of batches of each rank in one step.

    Raises:
        TypeError, ValueError: an argument is invalid; the message names it and its value.
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
        check_int(f"{owner}: max_pixels", max_pixels, 1, 1 << 50)
        check_int(f"{owner}: height", height, 1, 1 << 20)
        check_int(f"{owner}: seed", 0 if seed is None else seed, 0, (1 << 63) - 1)
        check_int(f"{owner}: world_size", world_size, 1, 1 << 20)
        check_int(f"{owner}: rank", rank, 0, world_size - 1)
        check_int(f"{owner}: accumulate", accumulate, 1, 1 << 20)
        columns = np.array(widths, np.int64)
        if columns.ndim != 1 or not (columns > 0).any() or columns.min() < 0:
            raise ValueError(f"{owner}: widths must be non-negative numbers, at least one of them positive")
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._buckets = _buckets(columns, max(1, max_pixels // height))
        batches = sum(-(-len(lines) // size) for lines, size in self._buckets)
        self.batches_per_epoch = -(-batches // (world_size * accumulate)) * accumulate
        self.set_epoch(0)

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Sets the epoch, from 0, and the number of its batches that this rank skips.

        Raises:
            TypeError, ValueError: the position is not in [0, `batches_per_epoch`], or the epoch is negative.
        """
        check_int("set_epoch: epoch", epoch, 0, (1 << 63) - 1)
        check_int("set_epoch: position", position, 0, self.batches_per_epoch)
        self._epoch, self._position = epoch, position

    def __len__(self) -> int:
        return self.batches_per_epoch - self._position

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches()[self._rank :: self._world_size][self._position :]:
            yield batch.tolist()

    def _batches(self) -> list[npt.NDArray[np.int64]]:
        """The batches of all ranks, which take turns."""
        random = None if self._seed is None else np.random.default_rng([self._seed, self._epoch])
        batches = []
        for lines, size in self._buckets:
            order = lines if random is None else random.permutation(lines)
            batches += [order[first : first + size] for first in range(0, len(order), size)]
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
    """Buckets of lines of similar width, from wide to narrow, each with the batch size that fits the budget.

    The budget is in columns. The number of buckets is about the number of batches in each: this keeps padding
    low and batches random.
    """
    order = np.argsort(-columns, kind="stable")[: np.count_nonzero(columns)]
    batches = max(1, round((columns.sum() / budget) ** 0.5))
    buckets = []
    while len(order):
        size = max(1, budget // int(columns[order[0]]))
        buckets.append((order[: size * batches], size))
        order = order[size * batches :]
    return buckets
