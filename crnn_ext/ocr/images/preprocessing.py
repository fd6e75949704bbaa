"""Conversion of images of any size to input tensors of the network."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crnn_ext._arguments import check_int, check_keys, check_number

from .image_files import ImageError, ImageSource, Mode, read_image

# The networks need a few columns for one frame. The upper limit bounds memory: no line of text is 512 times
# as wide as it is high.
MIN_COLUMNS = 8
MAX_COLUMNS = 1 << 14


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of images, identical in training and in inference.

    The image is converted to gray or RGB and scaled to `height` rows. The aspect ratio is kept, with at least
    8 columns; an image that would get more than 16,384 columns raises an ImageError. With a `width`, every
    image gets that many columns instead. Values from 0 (black) to 1 (white) become `(value - mean) / std`.

    Args:
        height: rows of the result.
        channels: 1 for gray, 3 for RGB.
        mean: subtracted from the values.
        std: divides the difference.
        width: columns of the result, from 8 to 16,384; None keeps the aspect ratio.

    Raises:
        TypeError, ValueError: an argument is invalid; the message names it and its value.
    """

    height: int = 32
    channels: int = 1
    mean: float = 0.5
    std: float = 0.5
    width: int | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_int(f"{owner}: height", self.height, 1, 1024)
        check_int(f"{owner}: channels", self.channels, 1, 3)
        if self.channels == 2:
            raise ValueError(f"{owner}: channels must be 1 or 3, got 2")
        check_number(f"{owner}: mean", self.mean, -1e3, 1e3)
        check_number(f"{owner}: std", self.std, 1e-3, 1e3)
        if self.width is not None:
            check_int(f"{owner}: width", self.width, MIN_COLUMNS, MAX_COLUMNS)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing that `to_dict` returned as a dict. The data may be untrusted.

        Raises:
            TypeError, ValueError: the keys are wrong, or a value is invalid.
        """
        if isinstance(data, Mapping):
            data = {"width": None, **data}  # earlier versions had no width
        return cls(**check_keys(cls.__name__, data, {field.name for field in fields(cls)}))

    def to_dict(self) -> dict[str, Any]:
        """The arguments, in the form in which a checkpoint stores them."""
        return asdict(self)

    @property
    def mode(self) -> Mode:
        """The Pillow mode of the network's input."""
        return "L" if self.channels == 1 else "RGB"

    def columns(self, width: int, height: int) -> int:
        """The number of columns W after preprocessing, for an image of this width and height in pixels.

        Raises:
            ImageError: W exceeds 16,384.
        """
        if self.width is not None:
            return self.width
        columns = round(width * self.height / height)
        if columns > MAX_COLUMNS:
            raise ImageError(
                f"{width} x {height} pixels, scaled to {self.height} rows, have {columns} columns; the limit "
                f"is {MAX_COLUMNS}"
            )
        return max(columns, MIN_COLUMNS)

    def __call__(self, image: ImageSource) -> Tensor:
        """Returns the network input for an image: float32 `(channels, height, W)`.

        Raises:
            ImageError, TypeError, ValueError: as `read_image`, or the image is too wide.
        """
        opened = read_image(image, self.mode)
        columns = self.columns(opened.width, opened.height)
        resized = opened.resize((columns, self.height), Image.Resampling.BILINEAR)
        values = np.asarray(resized, np.float32).reshape(self.height, columns, self.channels)
        return torch.from_numpy((values / 255 - self.mean) / self.std).permute(2, 0, 1)


def parse_resize(text: str) -> int | None:
    """Parses the command-line option that sets the `width` of a Preprocessing.

    Args:
        text: "keep" keeps the aspect ratio; "fixed:100" scales every image to 100 columns.

    Raises:
        ValueError: the text is neither.
    """
    if text == "keep":
        return None
    found = re.fullmatch("fixed:([0-9]{1,9})", text)
    if not found or not MIN_COLUMNS <= int(found[1]) <= MAX_COLUMNS:
        raise ValueError(
            f"resize must be keep, or fixed:COLUMNS with {MIN_COLUMNS} to {MAX_COLUMNS} columns, got "
            f"{text!r:.60}"
        )
    return int(found[1])
