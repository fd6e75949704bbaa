"""Images from files and arrays, converted to 8-bit gray or RGB on a white background."""

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

# Pillow supports many more, among them PostScript, for which it starts another program.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
# The suffixes of their file names, compared case-insensitively.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")

# EXIF orientations that swap rows and columns.
_TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)
_WIDTH_TAG, _HEIGHT_TAG = ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength


class ImageError(ValueError):
    """The image cannot be read. The message gives the reason; the caller adds the name of the image."""


def read_image(source: ImageSource, mode: Mode | None) -> Image.Image:
    """Reads an image as 8-bit gray ("L") or "RGB", in its original size.

    The EXIF orientation is applied, an animation gives its first frame, transparent pixels become white, and
    16-bit gray is scaled to 8 bits.

    Args:
        source: a PIL image, the path of an image file, its bytes in an `io.BytesIO`, or a
            uint8 array: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA.
        mode: the mode of the result; None keeps gray images gray and converts all others to RGB.

    Raises:
        ImageError: the file does not exist, is not an image, is truncated or damaged, has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or has floating-point pixels.
        TypeError, ValueError: the source is none of the above.
    """
    with _open_image(_from_array(source) if isinstance(source, np.ndarray) else source) as image:
        return _convert(ImageOps.exif_transpose(image), mode)


def image_size(source: ImageFile) -> tuple[int, int]:
    """Width and height of the image that `read_image` returns, from the header alone: no pixel is decoded.

    Raises:
        ImageError, TypeError: as `read_image`, except that damage after the header goes unnoticed.
    """
    with _open_image(source) as image:
        _check_has_pixels(image)
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # For TIFF alone, some versions of Pillow return the size after rotation.
            width, height = (image.tag_v2[tag] for tag in (_WIDTH_TAG, _HEIGHT_TAG))
        if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
            image.info.update(_png_exif(image))
        # PngImageFile.getexif would decode an image that has no EXIF data.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
        return (height, width) if orientation in _TRANSPOSED_ORIENTATIONS else (width, height)


def _png_exif(image: PngImagePlugin.PngImageFile) -> dict[str, bytes]:
    """The EXIF data of a PNG file. If they follow the pixels, Pillow finds them only after decoding."""
    file: Any = image.fp
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"eXIf":
            return {"exif": file.read(length)}
        if kind == b"IEND":
            break
        file.seek(length + 4, io.SEEK_CUR)  # plus the checksum
    return {}


@contextmanager
def _open_image(source: Image.Image | ImageFile) -> Iterator[Image.Image]:
    """Opens the image and turns every error inside the block into an ImageError."""
    if not isinstance(source, Image.Image | str | Path | io.BytesIO):
        raise TypeError(
            f"an image must be a PIL image, an array, a path or a BytesIO, got {type(source).__name__}"
        )
    try:
        if isinstance(source, Image.Image):
            yield source
            return
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            # Pillow only warns up to twice its limit.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            yield image
    except ImageError:
        raise
    except Exception as error:
        # For damaged files, Pillow raises many types of errors, including SyntaxError and IndexError.
        raise ImageError(_reason(error)) from error


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise TypeError(f"an image array must be uint8, got {array.dtype}")
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            "an image array must be (H, W), (H, W, 3) or (H, W, 4) with at least one pixel, "
            f"got shape {array.shape}"
        )
    return Image.fromarray(array)


def _check_has_pixels(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageError(f"the image has no pixels: {image.width} x {image.height}")


def _convert(image: Image.Image, mode: Mode | None) -> Image.Image:
    _check_has_pixels(image)
    kept = mode or ("L" if Image.getmodebase(image.mode) == "L" else "RGB")
    if image.mode.startswith("I"):
        # Mode "I" has 32 bits, but pixels from PNG files use only 16 of them.
        values = np.asarray(image)
        transparent = values == image.info.get("transparency", -1)
        image = Image.fromarray(np.where(transparent, 255, values.clip(0, 0xFFFF) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError("floating-point pixels are not supported: their white level is unknown")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(kept)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a known format ({', '.join(IMAGE_FORMATS)})"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"the image has more pixels than the limit of {Image.MAX_IMAGE_PIXELS}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"cannot be decoded: {str(error) or type(error).__name__}"
