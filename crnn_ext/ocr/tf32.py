"""Whether a GPU rounds float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Has GPUs compute convolutions and LSTMs in TF32 or in full float32, and all else in the latter.

    TF32 keeps 10 of float32's 23 bits of a fraction, and is torch's own choice for these two. Its settings
    are of the whole process; those from before come back at the end.
    """
    rounded = "tf32" if allowed else "ieee"
    cudnn: Any = torch.backends.cudnn
    wanted = ((cudnn.conv, rounded), (cudnn.rnn, rounded), (torch.backends.cuda.matmul, "ieee"))
    before = [setting.fp32_precision for setting, _ in wanted]
    try:
        for setting, precision in wanted:
            setting.fp32_precision = precision
        yield
    finally:
        for (setting, _), precision in zip(wanted, before, strict=True):
            setting.fp32_precision = precision
