"""The batches of an epoch, loaded in processes of their own."""

import os
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from crnn_ext.ocr.data import Batch, BucketBatchSampler, LineDataset, LineSource, collate
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.images import Preprocessing


class BatchLoader:
    """Loads what a sampler chooses.

    Args:
        source: the lines.
        preprocessing: what is done to their images.
        sampler: chooses them.
        augmentation: distorts the images before, if it is there.
        seed: draws the distortions.
        workers: processes; 0 for this one.
        pinned: whether a GPU shall be able to fetch the batches by itself.
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
        pinned: bool,
    ) -> None:
        self._lines = LineDataset(source, preprocessing, augmentation, seed=seed)
        self._sampler = sampler
        self._loader: DataLoader[Batch] = DataLoader(
            self._lines,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pinned,
            worker_init_fn=_leave_signals_to_others,
            # Otherwise it would draw from the generator that the weights of networks come from.
            generator=torch.Generator().manual_seed(seed),
        )

    def epoch(self, epoch: int, position: int) -> Iterator[Batch]:
        """The batches of an epoch, from 0, that come after the first `position` of them."""
        self._sampler.set_epoch(epoch, position)
        self._lines.set_epoch(epoch)
        return iter(self._loader)  # starts workers, who see the epoch


def _leave_signals_to_others(worker: int) -> None:
    # Ctrl-C, and what torchrun sends, reach all processes of a group. These are ended by the one that trains,
    # when it has saved its state, and must not have its handlers.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
