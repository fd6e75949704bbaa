"""Data sets of text lines: reading them from every layout in use, checking them, batches of them.

Needs the optional dependencies of `crnn_ext[ocr]`; LMDB, and with it `pack`, those of `crnn_ext[train]`.
"""

from .batches import Batch, LineDataset, Sample, WidthBuckets, collate
from .measure import Measured, measure_lines
from .readers import open_lines
from .source import DataError, LineSource, Problem

__all__ = [
    "Batch",
    "DataError",
    "LineDataset",
    "LineSource",
    "Measured",
    "Problem",
    "Sample",
    "WidthBuckets",
    "collate",
    "measure_lines",
    "open_lines",
]
