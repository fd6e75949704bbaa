"""Packing of data sets of any layout into one LMDB database."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from crnn_ext.ocr.images import ImageError, read_image
from crnn_ext.ocr.system.atomic_write import temporary_path

from .lmdb_io import LmdbError, LmdbWriter
from .parallel import map_lines
from .source import DataError, DataIssue, LineSource

ImageEncoding = Literal["png", "jpeg"]

# Number of lines in one transaction, which is repeated if the map has to grow.
_LINES_PER_TRANSACTION = 64

_JPEG_QUALITY = 90


class PackResult(NamedTuple):
    """The number of lines written, and the source and the issue of each skipped item."""

    lines: int
    skipped: list[tuple[LineSource, DataIssue]]


def pack_lines(
    sources: Sequence[LineSource],
    folder: str | os.PathLike[str],
    encoding: ImageEncoding | None = None,
    workers: int | None = None,
) -> PackResult:
    """Writes the lines of all sources, in order, to a new LMDB database.

    The lines keep their names. If lines of two sources have the same name, all names are prefixed with the
    number of their source, from 1, and a colon. Every image is decoded; lines with unreadable images are
    skipped. The folder appears only when it is complete, and not at all if no line is usable.

    Args:
        sources: the data sets, from `open_lines`.
        folder: the folder to create; its parent must exist.
        encoding: None copies the image files unchanged. Otherwise the images are re-encoded upright, on a
            white background and in 8-bit gray or RGB: "png" is lossless, "jpeg" (quality 90) is smaller.
        workers: number of processes that decode images; 1 uses this process alone. The default is the number
            of cores.

    Raises:
        DataError: the folder exists or cannot be created, the disk is full, or a worker process was killed.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise DataError(f"{folder}: already exists; choose a new folder")
    temporary = temporary_path(folder)
    skipped: list[tuple[LineSource, DataIssue]] = []
    try:
        temporary.mkdir()
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    try:
        with LmdbWriter(temporary) as writer:
            names = [set(source.names) for source in sources]
            unique = len(set().union(*names)) == sum(map(len, names))
            for number, source in enumerate(sources, 1):
                skipped += [(source, issue) for issue in source.skipped]
                prefix = "" if unique else f"{number}:"
                lines = _readable(source, prefix, encoding, workers, skipped)
                while chunk := list(islice(lines, _LINES_PER_TRANSACTION)):
                    writer.append(chunk)
            writer.close()
        if writer.count:
            temporary.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    except LmdbError as error:
        raise DataError(f"{folder}: cannot be written; the disk may be full: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return PackResult(writer.count, skipped)


def _readable(
    source: LineSource,
    prefix: str,
    encoding: ImageEncoding | None,
    workers: int | None,
    skipped: list[tuple[LineSource, DataIssue]],
) -> Iterator[tuple[str, str, bytes]]:
    """The names, labels and images of the readable lines; the issues of the others are added to `skipped`."""
    images = map_lines(partial(_encode, encoding), source, f"packing {source.path}", workers)
    for name, label, image in zip(source.names, source.labels, images, strict=True):
        if isinstance(image, DataIssue):
            skipped.append((source, image))
        else:
            yield f"{prefix}{name}", label, image


def _encode(encoding: ImageEncoding | None, source: LineSource, index: int) -> bytes | DataIssue:
    try:
        encoded = source.image_bytes(index)
        image = read_image(io.BytesIO(encoded), None)
    except ImageError as error:
        return DataIssue(source.names[index], "unreadable image", str(error))
    if encoding is None:
        return encoded
    file = io.BytesIO()
    try:
        image.save(file, encoding, quality=_JPEG_QUALITY)
    except OSError:  # the message of Pillow does not give the reason
        size = f"{image.width} x {image.height}"
        return DataIssue(
            source.names[index], "image not encoded", f"{encoding} does not support {size} pixels"
        )
    return file.getvalue()
