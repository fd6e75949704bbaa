"""The sizes of the images of lines."""

import hashlib
import io
from functools import partial
from typing import NamedTuple

from crnn_ext.ocr.images import ImageError, read_image

from .parallel import map_lines
from .source import DataIssue, LineSource


class ImageSize(NamedTuple):
    """Width and height of an image in pixels; if it was decoded, a digest of its file."""

    width: int
    height: int
    digest: bytes | None = None


def measure_lines(
    source: LineSource, *, decode: bool = False, workers: int | None = None
) -> list[ImageSize | DataIssue]:
    """The size of the image of each line, or why it cannot be read.

    Args:
        source: the lines.
        decode: decodes each image, which finds damage behind its header too.
        workers: processes; 1 for this one alone. By default as many as cores.

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
