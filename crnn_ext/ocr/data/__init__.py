"""Data sets of text lines: reading them from every layout in use, checking them, batches of them.

Needs the optional dependencies of `crnn_ext[ocr]`; LMDB, and with it `pack`, those of `crnn_ext[train]`.
"""

from .dataset import Batch, BucketBatchSampler, LineDataset, Sample, collate
from .measure import ImageSize, measure_lines
from .readers import open_lines
from .source import DataError, DataIssue, LineSource

__all__ = [
    "Batch",
    "BucketBatchSampler",
    "DataError",
    "DataIssue",
    "ImageSize",
    "LineDataset",
    "LineSource",
    "Sample",
    "collate",
    "measure_lines",
    "open_lines",
]
