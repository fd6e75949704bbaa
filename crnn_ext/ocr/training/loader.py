"""Loading of batches in worker processes."""

import os
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from crnn_ext.ocr.data import Batch, BucketBatchSampler, LineDataset, LineSource, collate
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.images import Preprocessing


class BatchLoader:
    """Loads the batches that a sampler chooses.

    Args:
        source: the data set.
        preprocessing: preprocessing of the images.
        sampler: chooses the lines of each batch.
        augmentation: applied before the preprocessing, if given.
        seed: seed of the augmentation.
        workers: number of worker processes; 0 loads in this process.
        pin_memory: whether to load into pinned memory, for asynchronous copies to a GPU.
    """

    def __init__(
        self,
        source: LineSource,
        preprocessing: Preprocessing,
        sampler: BucketBatchSampler,
        augmentation: Augmentation | None,
        *,
        seed: int,
        workers: int,
        pin_memory: bool,
    ) -> None:
        self._dataset = LineDataset(source, preprocessing, augmentation, seed=seed)
        self._sampler = sampler
        self._loader: DataLoader[Batch] = DataLoader(
            self._dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_detach_from_signals,
            # The default generator would draw from the one that initializes networks.
            generator=torch.Generator().manual_seed(seed),
        )

    def epoch(self, epoch: int, position: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, without the first `position` of them."""
        self._sampler.set_epoch(epoch, position)
        self._dataset.set_epoch(epoch)
        return iter(self._loader)  # starts the workers, so the epoch must be set before


def _detach_from_signals(worker: int) -> None:
    # Ctrl-C and signals from torchrun reach the whole process group. The training process ends the workers
    # after it has saved its state, so they ignore SIGINT and drop its inherited handlers.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
