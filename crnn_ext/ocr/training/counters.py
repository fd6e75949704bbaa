"""Counters of a run between two reports: skipped lines and the speed of the steps."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from crnn_ext.ocr.data import Batch, DataIssue

from .model import EncodedBatch


class SkipCounter:
    """The lines and steps that this process skipped since the previous report."""

    def __init__(self) -> None:
        self.infeasible: list[str] = []
        self.unreadable: list[DataIssue] = []
        self.skipped_steps = 0
        self.steps = 0

    def add(self, batches: Sequence[Batch], encoded: Sequence[EncodedBatch], updated: bool) -> None:
        """Counts the batches of a step; `updated` is False if the step changed no weight."""
        for batch, encoded_batch in zip(batches, encoded, strict=True):
            self.unreadable += batch.unreadable
            self.infeasible += encoded_batch.infeasible
        self.skipped_steps += not updated
        self.steps += 1

    def descriptions(self) -> list[str]:
        """The skipped lines with their reasons."""
        return [*map(str, self.unreadable), *(f"{name}: too few frames" for name in self.infeasible)]


class StepTimer:
    """Measures the speed of the steps."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._steps = 0
        self._lines = 0.0

    def count(self, lines: float) -> None:
        """Counts a step with this number of lines."""
        self._steps += 1
        self._lines += lines

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the block."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def speed(self) -> tuple[float, float]:
        """Seconds per step and lines per second since the previous call."""
        seconds = time.perf_counter() - self._start
        speed = seconds / self._steps, self._lines / max(seconds, 1e-9)
        self._restart()
        return speed
