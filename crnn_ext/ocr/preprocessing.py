"""From images of any size to the tensors that a network reads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .arguments import check_int, check_keys, check_number
from .images import ImageError, ImageSource, Mode, read_image

# Memory grows with the columns: so many take half a gigabyte in the first layer of a full-size CRNN.
MAX_COLUMNS = 1 << 16


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every image before the network sees it, the same in training and in reading.

    The image becomes grey or RGB and is scaled to `height` rows, keeping its aspect ratio. Its values from 0
    (black) to 1 (white) become `(value - mean) / std`.

    Args:
        height: rows of the result.
        channels: 1 for grey, 3 for RGB.
        mean: subtracted from the values.
        std: divides what is left.
        min_width: columns to which an image is stretched that would have fewer.

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message names it and the value.
    """

    height: int = 32
    channels: int = 1
    mean: float = 0.5
    std: float = 0.5
    min_width: int = 8

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_int(owner, "height", self.height, 1, 1024)
        check_int(owner, "channels", self.channels, 1, 3)
        if self.channels == 2:
            raise ValueError(f"{owner}: channels must be 1 or 3, and it is 2")
        check_number(owner, "mean", self.mean, -1e3, 1e3)
        check_number(owner, "std", self.std, 0, 1e3)
        check_int(owner, "min_width", self.min_width, 1, 1024)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing that `to_dict` wrote. The data need not be trusted.

        Raises:
            TypeError, ValueError: the data is not of that form, and as the constructor.
        """
        settings = check_keys(cls.__name__, data, {"resize"} | {field.name for field in fields(cls)})
        resize = settings.pop("resize")
        if resize != "keep":
            raise ValueError(f"{cls.__name__}: resize must be 'keep', and it is {resize!r:.60}")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """The arguments, and `"resize": "keep"` for the aspect ratio, as a checkpoint holds them."""
        return {"resize": "keep", **asdict(self)}

    @property
    def mode(self) -> Mode:
        """Pillow's name for the pixels that the network reads."""
        return "L" if self.channels == 1 else "RGB"

    def __call__(self, image: ImageSource) -> Tensor:
        """The image as the network reads it: float32 `(channels, height, W)`.

        Raises:
            ImageError, TypeError, ValueError: as `read_image`.
            ImageError: the image would have more than 65,536 columns.
        """
        opened = read_image(image, self.mode)
        columns = max(self.min_width, round(opened.width * self.height / opened.height))
        if columns > MAX_COLUMNS:
            raise ImageError(
                f"it may have up to {MAX_COLUMNS} columns at {self.height} rows, and its {opened.width} x "
                f"{opened.height} pixels give {columns}"
            )
        resized = opened.resize((columns, self.height), Image.Resampling.BILINEAR)
        values = np.asarray(resized, np.float32).reshape(self.height, columns, self.channels)
        return torch.from_numpy((values / 255 - self.mean) / self.std).permute(2, 0, 1).contiguous()

    def pad(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """A batch of images of mixed widths, with white on their right.

        A network sees this white as part of the image, and that can change what it makes of the last columns.

        Args:
            images: N results of the preprocessing, `(channels, height, W_n)`.

        Returns:
            batch: float32 `(N, channels, height, W)`, W the largest width.
            widths: int64 `(N,)`, the columns of each image before.
        """
        widths = torch.tensor([image.shape[-1] for image in images], dtype=torch.int64)
        white = (1 - self.mean) / self.std
        columns = max(image.shape[-1] for image in images)
        batch = torch.full((len(images), self.channels, self.height, columns), white)
        for row, image in zip(batch, images, strict=True):
            row[..., : image.shape[-1]] = image
        return batch, widths
