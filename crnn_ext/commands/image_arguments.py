"""The images that the arguments of a command name."""

import codecs
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import describe_error


class ImagePaths(NamedTuple):
    """The images to read.

    Attributes:
        paths: paths in the order in which to read them.
        problems: why arguments name no images.
        list_files: the files that listed some of the paths.
    """

    paths: list[str]
    problems: list[str]
    list_files: list[str]


def find_images(arguments: Sequence[str]) -> ImagePaths:
    """Expands folders, patterns and lists; an argument without images becomes a problem."""
    found = ImagePaths([], [], [])
    for argument in arguments:
        try:
            paths, if_empty = _expand(argument, found)
        except OSError as error:
            message = describe_error(error) if error.filename else f"{argument}: {error.strerror}"
            found.problems.append(message)
            continue
        found.paths.extend(paths)
        if not paths:
            found.problems.append(f"{argument}: {if_empty}")
    return found


def _expand(argument: str, found: ImagePaths) -> tuple[list[str], str]:
    """The paths that an argument names, and the problem to report if there are none."""

    def on_error(error: OSError) -> None:
        if describe_error(error) not in found.problems:  # "**" visits some folders more than once
            found.problems.append(describe_error(error))

    if argument == "-":
        return _listed(sys.stdin.buffer.read()), "no file names on standard input"
    if os.path.isdir(argument):
        return list(_images_below(argument, on_error)), "no images in this folder"
    if not os.path.lexists(argument):
        if argument.startswith("@"):
            with open(argument[1:], "rb") as file:
                found.list_files.append(argument[1:])
                return _listed(file.read()), "no file names in this list"
        if glob.has_magic(argument):
            # "**" may reach a file along several ways.
            files = sorted({path for path in _matches(argument, on_error) if not os.path.isdir(path)})
            return files, "no such file and no match"
    return [argument], ""


def _listed(content: bytes) -> list[str]:
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b"\r"))]


def _images_below(root: str, on_error: Callable[[OSError], None]) -> Iterator[str]:
    # Imported late: Pillow may be missing, which the command reports itself.
    from crnn_ext.ocr.images.image_files import IMAGE_SUFFIXES
    from crnn_ext.ocr.system.folders import walk

    for folder, names in walk(root, on_error):
        yield from (str(folder / name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def _matches(pattern: str, on_error: Callable[[OSError], None]) -> Iterator[str]:
    """Files and folders that match; "**" matches any folders, without the link cycles of `glob`."""
    from crnn_ext.ocr.system.folders import walk

    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    first = parts.index("**")
    tail = parts[first + 1 :] or ["*"]
    for root in glob.iglob("/".join([*parts[:first], ""])) if first else ["."]:
        for folder, _ in walk(root, on_error):
            prefix = "" if folder == Path() else glob.escape(str(folder))
            yield from _matches(os.path.join(prefix, *tail), on_error)
