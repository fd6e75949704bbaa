"""Opens data sets of every layout that is in use, recognised by what is there. `docs/how-to/prepare-data.md` shows them."""

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
_PAIRS = f"*{_PAIR_SUFFIX}"
_DATABASE = "data.mdb"
# Before the suffix of images that ocropus has made of scans.
_OCROPUS_STEPS = (".bin", ".nrm")


def open_lines(path: str | os.PathLike[str]) -> LineSource:
    """Opens a data set: LMDB, a file of labels in a folder, pairs of files, or docTR's JSON.

    Labels are read now, images when they are asked for.

    Args:
        path: a folder that holds one of these, or the file of labels itself; `folder/*.gt.txt` for the pairs
            in a folder that has something else too.

    Raises:
        DataError: there is nothing of the kind, more than one, or it is damaged; the message names the path.
        ImportError: it is LMDB, and the package lmdb is not installed.
    """
    root = Path(path)
    try:
        if root.is_file():
            return _open_file(root)
        chosen = None
        if root.name == _PAIRS:
            root, chosen = root.parent, _PAIRS
        if not root.is_dir():
            raise DataError(f"{root}: no such file or folder")
        found, closed = _layouts(root)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from error
    if chosen is not None:
        found = {name: open_it for name, open_it in found.items() if name == chosen}
    if not found:
        raise DataError(
            f"{root}: no data set is there: neither {_DATABASE} nor a file of labels (labels.txt, gt.txt, "
            f"{_DOCTR_LABELS}) nor files {_PAIRS}" + (f"; {closed[0]}" if closed else "")
        )
    if len(found) > 1:
        raise DataError(f"{root}: more than one data set is there, name one of them: {', '.join(found)}")
    [open_it] = found.values()
    return open_it()


class FileLineSource(LineSource):
    """Lines whose images are files."""

    def image_file(self, index: int) -> Path:
        """The image file of a line."""
        return Path(self._images[index])


def _open_file(path: Path) -> LineSource:
    if path.name == _DATABASE:
        return _open_databases(path.parent, [path.parent])
    if path.suffix == ".json":
        return _open_doctr(path)
    if path.suffix in (".txt", ".tsv"):
        return _open_labels(path)
    raise DataError(f"{path}: a file of labels must end in .txt, .tsv or .json")


def _layouts(root: Path) -> tuple[dict[str, Callable[[], LineSource]], list[DataIssue]]:
    """What opens each data set in a folder, by what names it there, and the folders that cannot be listed."""
    found: dict[str, Callable[[], LineSource]] = {}
    databases = []
    pairs: list[tuple[Path, list[str]]] = []
    closed: list[DataIssue] = []

    def refuse(error: OSError) -> None:
        if Path(error.filename) == root:
            raise error
        name = os.path.relpath(error.filename, root)
        closed.append(DataIssue(name, "unreadable folder", str(error.strerror)))

    for folder, names in walk(root, refuse):
        if folder == root:
            for name in names:
                if _LABELS_FILE.fullmatch(name) and not name.endswith(_PAIR_SUFFIX):
                    found[name] = partial(_open_labels, root / name)
            if _DOCTR_LABELS in names:
                found[_DOCTR_LABELS] = partial(_open_doctr, root / _DOCTR_LABELS)
        if _DATABASE in names:
            databases.append(folder)
        if any(name.endswith(_PAIR_SUFFIX) for name in names):
            pairs.append((folder, names))
    if databases:
        name = ", ".join(os.path.relpath(folder / _DATABASE, root) for folder in databases)
        found[name] = partial(_with, closed, partial(_open_databases, root, databases))
    if pairs:
        found[_PAIRS] = partial(_with, closed, partial(_open_pairs, root, pairs))
    return found, closed


def _with(closed: list[DataIssue], open_it: Callable[[], LineSource]) -> LineSource:
    """What is opened, without what may be in folders that cannot be listed."""
    source = open_it()
    source.skipped = [*closed, *source.skipped]
    return source


def _open_databases(root: Path, folders: list[Path]) -> LineSource:
    from .lmdb_io import LmdbLineSource

    return LmdbLineSource(root, folders)


def _open_labels(path: Path) -> LineSource:
    """A file of lines "path<TAB>text", the paths from its folder."""
    entries: list[tuple[str, str | bytes]] = []
    items = LineRecords()
    for number, line in enumerate(_read(path).removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        name, tab, label = line.removesuffix(b"\r").partition(b"\t")
        if tab:
            entries.append((name.decode(errors="surrogateescape"), label))
        elif name.strip():
            items.skip(f"{path.name}, line {number}", "no tab between path and label")
    return _listed(path, path.parent, entries, items)


def _open_doctr(path: Path) -> LineSource:
    """A JSON object {"name": "text"}, the images in the folder `images` beside it."""
    try:
        # As pairs, since an object may have a key twice.
        pairs = json.loads(_read(path), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: it is no JSON in UTF-8: {error}") from None
    if not isinstance(pairs, _Pairs):
        raise DataError(f"{path}: it must be a JSON object, from names of images to labels")
    items = LineRecords()
    entries = []
    for name, label in pairs:
        if isinstance(label, str):
            entries.append((name, label))
        else:
            items.skip(
                name, "label is no text", f"{'an object' if isinstance(label, _Pairs) else label!r:.60}"
            )
    return _listed(path, path.parent / "images", entries, items)


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in their order."""


def _listed(
    path: Path, folder: Path, entries: Iterable[tuple[str, str | bytes]], items: LineRecords
) -> LineSource:
    """The lines of a file of labels; those without an image and those listed twice are skipped."""
    # Asked once a folder, as one question a file would be slow over a network.
    files_of = cache(_files_of)
    labels: dict[str, str | bytes] = {}
    for listed, label in entries:
        name = os.path.normpath(listed)
        image = os.path.join(folder, name)
        if name in labels:
            other = "the same" if labels[name] == label else "another"
            items.skip(name, "duplicate path", f"listed before with {other} label")
        elif os.path.basename(image) in files_of(os.path.dirname(image)):
            items.add(name, label, image)
        else:
            items.skip(name, "missing image", f"no file {image}")
        labels.setdefault(name, label)
    return _lines(path, items)


def _files_of(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if is_file(entry))
    except (OSError, ValueError):  # a path with a zero byte is a ValueError
        return frozenset()


def _open_pairs(root: Path, folders: list[tuple[Path, list[str]]]) -> LineSource:
    """Files x.gt.txt with the label of x.png, or of another image of that name."""
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
        for stem, alone in images.items():
            for name in alone:
                relative = os.path.relpath(folder / name, root)
                items.skip(relative, "missing label", f"no file {stem}{_PAIR_SUFFIX} beside it")
    return _lines(root, items)


def _stem(image: str) -> str:
    """The name of an image without its suffix and the step of ocropus before it."""
    stem = os.path.splitext(image)[0]
    for step in _OCROPUS_STEPS:
        stem = stem.removesuffix(step)
    return stem


def _add_pair(items: LineRecords, root: Path, label: Path, images: list[Path]) -> None:
    name = os.path.relpath(label, root)
    if not images:
        items.skip(name, "missing image", "no image of that name beside it")
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


def _lines(path: Path, items: LineRecords) -> LineSource:
    if not items.names and not items.skipped:
        raise DataError(f"{path}: it is empty")
    return FileLineSource(path, items)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
