"""Measurement of image sizes."""

import hashlib
import io
from functools import partial
from typing import NamedTuple

from crnn_ext.ocr.images import ImageError, read_image

from .parallel import map_lines
from .source import DataIssue, LineSource


class ImageSize(NamedTuple):
    """Width and height of an image in pixels, and a digest of its file if the image was decoded."""

    width: int
    height: int
    digest: bytes | None = None


def measure_lines(
    source: LineSource, *, decode: bool = False, workers: int | None = None
) -> list[ImageSize | DataIssue]:
    """The size of the image of each line, or the issue if the image cannot be read.

    Args:
        source: the lines.
        decode: decodes each image, which also finds damage after the header.
        workers: number of processes; 1 uses this process alone. The default is the number of cores.

    Raises:
        DataError: as `map_lines`.
    """
    return list(map_lines(partial(_measure, decode), source, f"checking {source.path}", workers))


def _measure(decode: bool, source: LineSource, index: int) -> ImageSize | DataIssue:
    try:
        if not decode:
            return ImageSize(*source.image_size(index))
        encoded = source.image_bytes(index)
        size = read_image(io.BytesIO(encoded), None).size
    except ImageError as error:
        return DataIssue(source.names[index], "unreadable image", str(error))
    return ImageSize(*size, hashlib.blake2b(encoded, digest_size=16).digest())
