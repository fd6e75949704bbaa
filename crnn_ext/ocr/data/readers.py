"""Readers of data sets; they detect the layout. `docs/how-to/prepare-data.md` describes the layouts."""

import codecs
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from crnn_ext.ocr.images.image_files import IMAGE_SUFFIXES
from crnn_ext.ocr.system.folders import is_file, walk

from .source import DataError, DataIssue, LineRecords, LineSource

_LABELS_FILE = re.compile(r"(labels?|gt)([_.-].+)?\.(txt|tsv)")
_PAIR_SUFFIX = ".gt.txt"
_DOCTR_LABELS = "labels.json"
_PAIR_PATTERN = f"*{_PAIR_SUFFIX}"
_LMDB_FILE = "data.mdb"
# Suffixes that ocropus inserts before the file suffix of preprocessed images.
_OCROPUS_SUFFIXES = (".bin", ".nrm")


def open_lines(path: str | os.PathLike[str]) -> LineSource:
    """Opens a data set: LMDB, a label file with images, pairs of image and text files, or docTR's JSON.

    Labels are read immediately, images on demand.

    Args:
        path: a folder with one data set, or the label file itself; `folder/*.gt.txt` selects the pairs in a
            folder that contains another data set too.

    Raises:
        DataError: the folder has no data set or several, or the data set is damaged; the message names the
            path.
        ImportError: the data set is in LMDB, and the package lmdb is not installed.
    """
    root = Path(path)
    try:
        if root.is_file():
            return _open_file(root)
        chosen = None
        if root.name == _PAIR_PATTERN:
            root, chosen = root.parent, _PAIR_PATTERN
        if not root.is_dir():
            raise DataError(f"{root}: no such file or folder")
        found, unreadable = _layouts(root)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from error
    if chosen is not None:
        found = {name: open_source for name, open_source in found.items() if name == chosen}
    if not found:
        raise DataError(
            f"{root}: no data set found: no {_LMDB_FILE}, no label file (labels.txt, gt.txt, "
            f"{_DOCTR_LABELS}), no {_PAIR_PATTERN}" + (f"; {unreadable[0]}" if unreadable else "")
        )
    if len(found) > 1:
        raise DataError(f"{root}: several data sets found, choose one: {', '.join(found)}")
    [open_source] = found.values()
    return open_source()


class FileLineSource(LineSource):
    """A source whose images are files."""

    def image_file(self, index: int) -> Path:
        """The image file of a line."""
        return Path(self._images[index])


def _open_file(path: Path) -> LineSource:
    if path.name == _LMDB_FILE:
        return _open_databases(path.parent, [path.parent])
    if path.suffix == ".json":
        return _open_doctr(path)
    if path.suffix in (".txt", ".tsv"):
        return _open_labels(path)
    raise DataError(f"{path}: the suffix of a label file must be .txt, .tsv or .json")


def _layouts(root: Path) -> tuple[dict[str, Callable[[], LineSource]], list[DataIssue]]:
    """Functions that open the data sets in a folder, by name, and the issues of unreadable subfolders."""
    found: dict[str, Callable[[], LineSource]] = {}
    databases = []
    pairs: list[tuple[Path, list[str]]] = []
    unreadable: list[DataIssue] = []

    def on_error(error: OSError) -> None:
        if Path(error.filename) == root:
            raise error
        name = os.path.relpath(error.filename, root)
        unreadable.append(DataIssue(name, "unreadable folder", str(error.strerror)))

    for folder, names in walk(root, on_error):
        if folder == root:
            for name in names:
                if _LABELS_FILE.fullmatch(name) and not name.endswith(_PAIR_SUFFIX):
                    found[name] = partial(_open_labels, root / name)
            if _DOCTR_LABELS in names:
                found[_DOCTR_LABELS] = partial(_open_doctr, root / _DOCTR_LABELS)
        if _LMDB_FILE in names:
            databases.append(folder)
        if any(name.endswith(_PAIR_SUFFIX) for name in names):
            pairs.append((folder, names))
    if databases:
        name = ", ".join(os.path.relpath(folder / _LMDB_FILE, root) for folder in databases)
        found[name] = partial(_with_skipped, unreadable, partial(_open_databases, root, databases))
    if pairs:
        found[_PAIR_PATTERN] = partial(_with_skipped, unreadable, partial(_open_pairs, root, pairs))
    return found, unreadable


def _with_skipped(issues: list[DataIssue], open_source: Callable[[], LineSource]) -> LineSource:
    """Opens a source and prepends the issues to its skipped items."""
    source = open_source()
    source.skipped = [*issues, *source.skipped]
    return source


def _open_databases(root: Path, folders: list[Path]) -> LineSource:
    from .lmdb_io import LmdbLineSource

    return LmdbLineSource(root, folders)


def _open_labels(path: Path) -> LineSource:
    """Opens a file of lines "path<TAB>text"; paths are relative to its folder."""
    entries: list[tuple[str, str | bytes]] = []
    items = LineRecords()
    for number, line in enumerate(_read(path).removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        name, tab, label = line.removesuffix(b"\r").partition(b"\t")
        if tab:
            entries.append((name.decode(errors="surrogateescape"), label))
        elif name.strip():
            items.skip(f"{path.name}, line {number}", "no tab between path and label")
    return _label_file_source(path, path.parent, entries, items)


def _open_doctr(path: Path) -> LineSource:
    """Opens a JSON object {"name": "text"}; the images are in the folder `images` next to the file."""
    try:
        # Read as pairs: an object may have a key twice.
        pairs = json.loads(_read(path), object_pairs_hook=_JsonObject)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON in UTF-8: {error}") from None
    if not isinstance(pairs, _JsonObject):
        raise DataError(f"{path}: must be a JSON object that maps image names to labels")
    items = LineRecords()
    entries = []
    for name, label in pairs:
        if isinstance(label, str):
            entries.append((name, label))
        else:
            items.skip(
                name, "label is not text", f"{'an object' if isinstance(label, _JsonObject) else label!r:.60}"
            )
    return _label_file_source(path, path.parent / "images", entries, items)


class _JsonObject(list[tuple[str, Any]]):
    """The members of a JSON object, in order."""


def _label_file_source(
    path: Path, folder: Path, entries: Iterable[tuple[str, str | bytes]], items: LineRecords
) -> LineSource:
    """The source of a label file; it skips lines without an image and repeated paths."""
    # List each folder once: a check for each file would be slow on network drives.
    files_in = cache(_files_in)
    labels: dict[str, str | bytes] = {}
    for listed, label in entries:
        name = os.path.normpath(listed)
        image = os.path.join(folder, name)
        if name in labels:
            other = "the same" if labels[name] == label else "a different"
            items.skip(name, "duplicate path", f"listed before with {other} label")
        elif os.path.basename(image) in files_in(os.path.dirname(image)):
            items.add(name, label, image)
        else:
            items.skip(name, "missing image", f"no file {image}")
        labels.setdefault(name, label)
    return _file_source(path, items)


def _files_in(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if is_file(entry))
    except (OSError, ValueError):  # ValueError: the path has a null byte
        return frozenset()


def _open_pairs(root: Path, folders: list[tuple[Path, list[str]]]) -> LineSource:
    """Opens pairs: x.gt.txt has the label of x.png, or of an image x with another suffix."""
    items = LineRecords()
    for folder, names in folders:
        labels = [name for name in names if name.endswith(_PAIR_SUFFIX)]
        images = defaultdict(list)
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES):
                images[_stem(name)].append(name)
        for name in labels:
            stem = name.removesuffix(_PAIR_SUFFIX)
            _add_pair(items, root, folder / name, [folder / image for image in images.pop(stem, [])])
        for stem, unlabeled in images.items():
            for name in unlabeled:
                relative = os.path.relpath(folder / name, root)
                items.skip(relative, "missing label", f"no file {stem}{_PAIR_SUFFIX} in its folder")
    return _file_source(root, items)


def _stem(image: str) -> str:
    """The name of an image without its file suffix and the suffix of ocropus."""
    stem = os.path.splitext(image)[0]
    for suffix in _OCROPUS_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def _add_pair(items: LineRecords, root: Path, label: Path, images: list[Path]) -> None:
    name = os.path.relpath(label, root)
    if not images:
        items.skip(name, "missing image", "no image of that name in its folder")
    elif len(images) > 1:
        items.skip(name, "more than one image", ", ".join(image.name for image in images))
    else:
        try:
            text = label.read_bytes()
        except OSError as error:
            items.skip(name, "unreadable label", str(error.strerror))
            return
        text = text.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").removesuffix(b"\r")
        items.add(os.path.relpath(images[0], root), text, str(images[0]))


def _file_source(path: Path, items: LineRecords) -> LineSource:
    if not items.names and not items.skipped:
        raise DataError(f"{path}: the data set is empty")
    return FileLineSource(path, items)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
