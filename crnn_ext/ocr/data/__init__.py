"""Data sets of text lines: readers for common layouts, checks, packing, augmentation and batches.

Requires the optional dependencies of `crnn_ext[ocr]`; LMDB, and thus `pack`, requires `crnn_ext[train]`.
"""

from .dataset import Batch, LineDataset, Sample, collate
from .measure import ImageSize, measure_lines
from .readers import open_lines
from .sampler import BucketBatchSampler
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
