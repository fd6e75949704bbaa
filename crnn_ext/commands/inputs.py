"""The arguments of commands that read images: which ones."""

import argparse
import codecs
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .messages import describe_error


class ImagePaths(NamedTuple):
    """The paths of images in the order in which they are to be read, and why there are no more.

    `list_files` are the files that have named some of them.
    """

    paths: list[str]
    problems: list[str]
    list_files: list[str]


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `IMAGE...`, which becomes `images`."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a PNG, JPEG, WebP, TIFF, BMP or GIF file of up to 89 million pixels; a folder, for all images "
        "below it, sorted; a pattern such as 'pages/**/*.png', for the files that match, sorted; @FILE, for "
        "the files that FILE names, one a line; or -, for those that standard input names. What is a pattern "
        "or @FILE and the name of a file too is that file",
    )


def find_images(images: Sequence[str]) -> ImagePaths:
    """The images that the arguments stand for; each that stands for none is a problem."""
    found = ImagePaths([], [], [])
    for image in images:
        try:
            paths, nothing = _paths(image, found)
        except OSError as error:
            found.problems.append(describe_error(error) if error.filename else f"{image}: {error.strerror}")
            continue
        found.paths.extend(paths)
        if not paths:
            found.problems.append(f"{image}: {nothing}")
    return found


def _paths(image: str, found: ImagePaths) -> tuple[list[str], str]:
    """What an argument stands for, and what to say if that is nothing."""

    def refuse(error: OSError) -> None:
        if describe_error(error) not in found.problems:  # "**" comes more than once to some folders
            found.problems.append(describe_error(error))

    if image == "-":
        return _listed(sys.stdin.buffer.read()), "standard input names no file"
    if os.path.isdir(image):
        return list(_below(image, refuse)), "no image is in this folder"
    if not os.path.lexists(image):
        if image.startswith("@"):
            with open(image[1:], "rb") as file:
                found.list_files.append(image[1:])
                return _listed(file.read()), "no file is named there"
        if glob.has_magic(image):
            # Different ways through "**" may lead to one file.
            files = sorted({path for path in _matches(image, refuse) if not os.path.isdir(path)})
            return files, "no such file, and none that matches"
    return [image], ""


def _listed(content: bytes) -> list[str]:
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b"\r"))]


def _below(root: str, refuse: Callable[[OSError], None]) -> Iterator[str]:
    # Pillow, which this imports, may be missing, and the command is to say so itself.
    from crnn_ext.ocr.images.image_files import IMAGE_SUFFIXES
    from crnn_ext.ocr.system.folders import walk

    for folder, names in walk(root, refuse):
        yield from (str(folder / name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def _matches(pattern: str, refuse: Callable[[OSError], None]) -> Iterator[str]:
    """Files and folders that match, "**" standing for any folders; `glob` would follow links in circles."""
    from crnn_ext.ocr.system.folders import walk

    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    first = parts.index("**")
    tail = parts[first + 1 :] or ["*"]
    for root in glob.iglob("/".join([*parts[:first], ""])) if first else ["."]:
        for folder, _ in walk(root, refuse):
            prefix = "" if folder == Path() else glob.escape(str(folder))
            yield from _matches(os.path.join(prefix, *tail), refuse)
