"""Puts data sets of any layout into one LMDB database."""

import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from crnn_ext.ocr.images import ImageError, read_image

from .lmdb_io import LmdbError, LmdbWriter
from .parallel import map_lines
from .source import DataError, DataIssue, LineSource

ImageEncoding = Literal["png", "jpeg"]

# Lines that are written at a time, and again if the map has to grow.
_LINES_AT_A_TIME = 64

_JPEG_QUALITY = 90


class PackResult(NamedTuple):
    """How many lines were written, and what was skipped: the source and the issue of each item."""

    lines: int
    skipped: list[tuple[LineSource, DataIssue]]


def pack_lines(
    sources: Sequence[LineSource],
    folder: str | os.PathLike[str],
    encoding: ImageEncoding | None = None,
    workers: int | None = None,
) -> PackResult:
    """Writes the lines of the sources, one after the other, to a new LMDB database.

    They keep their names, unless lines of two sources have the same: then all get the number of their source
    in front, from 1, and a colon. Every image is decoded first; those that cannot be are skipped. The folder
    appears when it is complete, not before, and not at all if no line can be used.

    Args:
        sources: what `open_lines` gives.
        folder: to make; its parent exists.
        encoding: None for image files as they are. Otherwise they are encoded anew, upright, on white and in
            8-bit grey or RGB: "png" keeps these pixels, "jpeg" is smaller (quality 90).
        workers: processes that decode, 1 for this one alone. By default as many as cores.

    Raises:
        DataError: the folder exists or cannot be made, the disk is full, or a process was killed.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise DataError(f"{folder}: it exists, and nothing is overwritten")
    unfinished = folder.with_name(f".crnn_ext-{secrets.token_hex(4)}.tmp")
    skipped: list[tuple[LineSource, DataIssue]] = []
    try:
        unfinished.mkdir()
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    try:
        with LmdbWriter(unfinished) as writer:
            names = [set(source.names) for source in sources]
            distinct = len(set().union(*names)) == sum(map(len, names))
            for number, source in enumerate(sources, 1):
                skipped += [(source, issue) for issue in source.skipped]
                prefix = "" if distinct else f"{number}:"
                lines = _readable(source, prefix, encoding, workers, skipped)
                while some := list(islice(lines, _LINES_AT_A_TIME)):
                    writer.append(some)
            writer.close()
        if writer.count:
            unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    except LmdbError as error:
        raise DataError(f"{folder}: it cannot be written; the disk may be full: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return PackResult(writer.count, skipped)


def _readable(
    source: LineSource,
    prefix: str,
    encoding: ImageEncoding | None,
    workers: int | None,
    skipped: list[tuple[LineSource, DataIssue]],
) -> Iterator[tuple[str, str, bytes]]:
    """Name, label and image of the lines that can be read; the others are added to those skipped."""
    images = map_lines(partial(_image, encoding), source, f"packing {source.path}", workers)
    for name, label, image in zip(source.names, source.labels, images, strict=True):
        if isinstance(image, DataIssue):
            skipped.append((source, image))
        else:
            yield f"{prefix}{name}", label, image


def _image(encoding: ImageEncoding | None, source: LineSource, index: int) -> bytes | DataIssue:
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
    except OSError:  # Pillow does not say why
        size = f"{image.width} x {image.height}"
        return DataIssue(source.names[index], "image not encoded", f"{encoding} cannot hold {size} pixels")
    return file.getvalue()
