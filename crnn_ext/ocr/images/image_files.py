"""Images of every kind, from files and arrays, brought to 8-bit grey or RGB on white paper."""

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

Mode = Literal["L", "RGB"]
ImageFile = str | Path | io.BytesIO
ImageSource = Image.Image | npt.NDArray[np.uint8] | ImageFile

# Pillow knows many more, among them PostScript, for which it starts another program.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
# How the names of their files end, in any case.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")

# EXIF orientations in which rows of the file are columns of the upright image.
_ON_ITS_SIDE = (5, 6, 7, 8)
_WIDTH_TAG, _HEIGHT_TAG = ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength


class ImageError(ValueError):
    """An image that cannot be read. The message says why; who knows the image's name puts it in front."""


def read_image(source: ImageSource, mode: Mode | None) -> Image.Image:
    """An image as 8-bit grey ("L") or "RGB", in its own size.

    It is turned upright as its EXIF orientation asks; of an animation it is the first frame; what is
    transparent becomes white; 16-bit grey is scaled to 8 bits.

    Args:
        source: a PIL image, the path of an image file, its bytes in an `io.BytesIO`, or a
            uint8 array: `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA.
        mode: what becomes of it; None keeps grey images grey and makes all others RGB.

    Raises:
        ImageError: there is no such file, it is no image, incomplete, damaged, of more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or its pixels are floating-point numbers.
        TypeError, ValueError: the source is nothing of the above.
    """
    with _opened(_from_array(source) if isinstance(source, np.ndarray) else source) as image:
        return _flatten(ImageOps.exif_transpose(image), mode)


def image_size(source: ImageFile) -> tuple[int, int]:
    """Width and height of what `read_image` makes of a file, from its header: no pixel is decoded.

    Raises:
        ImageError, TypeError: as `read_image`, but for damage behind the header.
    """
    with _opened(source) as image:
        _check_has_pixels(image)
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # Some versions of Pillow give the upright size of these, and of no other format.
            width, height = (image.tag_v2[tag] for tag in (_WIDTH_TAG, _HEIGHT_TAG))
        if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
            image.info.update(_png_exif(image))
        # The method of PNG images would decode those that have none.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
        return (height, width) if orientation in _ON_ITS_SIDE else (width, height)


def _png_exif(image: PngImagePlugin.PngImageFile) -> dict[str, bytes]:
    """The EXIF data of a PNG file; behind the pixels, Pillow finds them only when it has decoded these."""
    file: Any = image.fp
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"eXIf":
            return {"exif": file.read(length)}
        if kind == b"IEND":
            break
        file.seek(length + 4, io.SEEK_CUR)  # and the checksum
    return {}


@contextmanager
def _opened(source: Image.Image | ImageFile) -> Iterator[Image.Image]:
    """The image, until whose end every error is an ImageError."""
    if not isinstance(source, Image.Image | str | Path | io.BytesIO):
        raise TypeError(
            f"an image must be a PIL image, an array, a path or a BytesIO, and it is {type(source).__name__}"
        )
    try:
        if isinstance(source, Image.Image):
            yield source
            return
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            # Up to twice its limit Pillow merely warns.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            yield image
    except ImageError:
        raise
    except Exception as error:
        # A damaged file makes Pillow raise nearly anything, SyntaxError and IndexError too.
        raise ImageError(_reason(error)) from error


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise TypeError(f"an image array must be uint8, and it is {array.dtype}")
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            "an image array must be (H, W), (H, W, 3) or (H, W, 4) with at least one pixel, "
            f"and its shape is {array.shape}"
        )
    return Image.fromarray(array)


def _check_has_pixels(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageError(f"it has no pixels: its size is {image.width} x {image.height}")


def _flatten(image: Image.Image, mode: Mode | None) -> Image.Image:
    _check_has_pixels(image)
    kept = mode or ("L" if Image.getmodebase(image.mode) == "L" else "RGB")
    if image.mode.startswith("I"):
        # Mode "I" has room for 32 bits, but holds 16 where it comes from a PNG file.
        values = np.asarray(image)
        transparent = values == image.info.get("transparency", -1)
        image = Image.fromarray(np.where(transparent, 255, values.clip(0, 0xFFFF) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError("its pixels are floating-point numbers, which do not tell what is white")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(kept)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image in a known format ({', '.join(IMAGE_FORMATS)})"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more pixels than the limit of {Image.MAX_IMAGE_PIXELS}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it cannot be decoded: {str(error) or type(error).__name__}"
