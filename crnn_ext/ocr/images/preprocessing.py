"""From images of any size to the tensors that a network reads."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crnn_ext.ocr.system.arguments import check_int, check_keys, check_number

from .image_files import ImageError, ImageSource, Mode, read_image

# The networks need a few columns for one frame. In the other direction memory grows with the columns, and no
# line of text is 512 times as wide as it is high.
MIN_COLUMNS = 8
MAX_COLUMNS = 1 << 14


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every image before the network sees it, the same in training and in reading.

    The image becomes grey or RGB and is scaled to `height` rows, keeping its aspect ratio unless that gives
    fewer than 8 columns, and is refused if it gives more than 16,384; with a `width`, every image gets that
    many columns. Values from 0 (black) to 1 (white) become `(value - mean) / std`.

    Args:
        height: rows of the result.
        channels: 1 for grey, 3 for RGB.
        mean: subtracted from the values.
        std: divides what is left.
        width: columns of the result, from 8 to 16,384; None to keep the aspect ratio.

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message names it and the value.
    """

    height: int = 32
    channels: int = 1
    mean: float = 0.5
    std: float = 0.5
    width: int | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_int(owner, "height", self.height, 1, 1024)
        check_int(owner, "channels", self.channels, 1, 3)
        if self.channels == 2:
            raise ValueError(f"{owner}: channels must be 1 or 3, and it is 2")
        check_number(owner, "mean", self.mean, -1e3, 1e3)
        check_number(owner, "std", self.std, 1e-3, 1e3)
        if self.width is not None:
            check_int(owner, "width", self.width, MIN_COLUMNS, MAX_COLUMNS)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing that `to_dict` wrote. The data need not be trusted.

        Raises:
            TypeError, ValueError: the data is not of that form, and as the constructor.
        """
        if isinstance(data, Mapping):
            data = {"width": None, **data}  # earlier versions had none
        return cls(**check_keys(cls.__name__, data, {field.name for field in fields(cls)}))

    def to_dict(self) -> dict[str, Any]:
        """The arguments, as a checkpoint holds them."""
        return asdict(self)

    @property
    def mode(self) -> Mode:
        """Pillow's name for the pixels that the network reads."""
        return "L" if self.channels == 1 else "RGB"

    def columns(self, width: int, height: int) -> int:
        """How many columns W an image of this size, in pixels, has afterwards.

        Raises:
            ImageError: they are too many.
        """
        if self.width is not None:
            return self.width
        columns = round(width * self.height / height)
        if columns > MAX_COLUMNS:
            raise ImageError(
                f"{width} x {height} pixels would be {columns} columns of {self.height} rows, and the limit "
                f"is {MAX_COLUMNS}"
            )
        return max(columns, MIN_COLUMNS)

    def __call__(self, image: ImageSource) -> Tensor:
        """The image as the network reads it: float32 `(channels, height, W)`.

        Raises:
            ImageError, TypeError, ValueError: as `read_image`, or the image is too wide.
        """
        opened = read_image(image, self.mode)
        columns = self.columns(opened.width, opened.height)
        resized = opened.resize((columns, self.height), Image.Resampling.BILINEAR)
        values = np.asarray(resized, np.float32).reshape(self.height, columns, self.channels)
        return torch.from_numpy((values / 255 - self.mean) / self.std).permute(2, 0, 1)


def parse_resize(text: str) -> int | None:
    """The `width` of a Preprocessing that a command line asks for.

    Args:
        text: "keep" for the aspect ratio of each image, or "fixed:100" for so many columns.

    Raises:
        ValueError: it is neither.
    """
    if text == "keep":
        return None
    found = re.fullmatch("fixed:([0-9]{1,9})", text)
    if not found or not MIN_COLUMNS <= int(found[1]) <= MAX_COLUMNS:
        raise ValueError(
            f"resize must be keep, or fixed: and columns from {MIN_COLUMNS} to {MAX_COLUMNS}, and it is "
            f"{text!r:.60}"
        )
    return int(found[1])
