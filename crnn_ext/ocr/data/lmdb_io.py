"""Reading and writing LMDB databases of lines.

The keys are those of other toolkits: `num-samples` and, counted from 1, `image-000000001` (the bytes of an
image file) and `label-000000001` (UTF-8). `name-000000001`, which they ignore, is the name of the line.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from crnn_ext.ocr.images import ImageError

from .source import DataError, LineRecords, LineSource

try:
    import lmdb
except ImportError as error:
    raise ImportError(
        "LMDB databases need lmdb, which is not installed: install crnn_ext with its extra [train]",
        name=error.name,
    ) from error

LmdbError = lmdb.Error

_COUNT = b"num-samples"

# The map size of a new database in bytes; it doubles whenever the map is full.
_INITIAL_MAP_SIZE = 1 << 20


class LmdbLineSource(LineSource):
    """The concatenated lines of one or more databases.

    Args:
        path: the common parent folder.
        folders: the folders of the databases.

    Raises:
        DataError: a database cannot be opened, has a different layout or is damaged.
    """

    def __init__(self, path: Path, folders: list[Path]) -> None:
        items = LineRecords()
        for folder in folders:
            try:
                _add_lines(items, folder, os.path.relpath(folder, path))
            except LmdbError as error:
                raise DataError(f"{folder}: {error}") from error
        super().__init__(path, items)
        self._databases: dict[Path, lmdb.Environment] = {}

    def image_file(self, index: int) -> io.BytesIO:
        """The bytes of the image of a line.

        Raises:
            ImageError: they can no longer be read.
        """
        folder, key = self._images[index]
        try:
            if folder not in self._databases:
                self._databases[folder] = _open_environment(folder)
            with self._databases[folder].begin() as transaction:
                value = transaction.get(key)
        except (DataError, LmdbError) as error:
            raise ImageError(f"cannot be read from the database: {error}") from error
        if value is None:
            raise ImageError("no longer in the database")
        return io.BytesIO(value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_databases": {}}


def _add_lines(items: LineRecords, folder: Path, prefix: str) -> None:
    environment = _open_environment(folder)
    with environment.begin(buffers=True) as transaction:
        for number in range(1, _count(folder, transaction) + 1):
            name, label, image = (transaction.get(_key(part, number)) for part in ("name", "label", "image"))
            key = _key("image", number)
            shown = key.decode() if name is None else bytes(name).decode(errors="surrogateescape")
            shown = os.path.normpath(os.path.join(prefix, shown))
            if label is None:
                items.skip(shown, "missing label", f"no key {_key('label', number).decode()}")
            elif image is None:
                items.skip(shown, "missing image", f"no key {key.decode()}")
            else:
                items.add(shown, bytes(label), (folder, key))


def _count(folder: Path, transaction: lmdb.Transaction) -> int:
    value = transaction.get(_COUNT)
    entries = transaction.stat()["entries"]
    if value is None:
        raise DataError(f"{folder}: not a database of lines: no key {_COUNT.decode()}")
    try:
        count = int(bytes(value))
    except ValueError:
        count = -1
    if not 0 < count <= entries:
        raise DataError(
            f"{folder}: {_COUNT.decode()} must be a number of lines, got {bytes(value)!r:.60} in a "
            f"database of {entries} keys"
        )
    return count


def _key(part: str, number: int) -> bytes:
    return f"{part}-{number:09d}".encode()


# LMDB allows a process to open a file only once: sources share environments, keyed by device and inode.
_environments: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()


def _open_environment(folder: Path) -> lmdb.Environment:
    """Opens a database read-only and without locks; forked processes can read it too.

    Raises:
        DataError: the file is truncated, which would crash LMDB.
        LmdbError: the database cannot be opened.
    """
    try:
        file = os.stat(folder / "data.mdb")
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    environment = _environments.get((file.st_dev, file.st_ino))
    if environment is None:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if file.st_size < needed:
            raise DataError(f"{folder}: data.mdb is truncated: it has {file.st_size} of {needed} bytes")
        _environments[file.st_dev, file.st_ino] = environment
    return environment


class LmdbWriter:
    """Writes a new database into an existing folder; the memory map grows as needed.

    It is a context manager. After `close`, the database is complete: `LmdbLineSource` and other toolkits can
    read it. The methods raise LmdbError if writing fails, for example because the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        # No locks: no other process uses the folder yet. No sync: the database is never used after a crash.
        self._environment = lmdb.open(str(folder), map_size=_INITIAL_MAP_SIZE, lock=False, sync=False)

    def append(self, lines: Iterable[tuple[str, str, bytes]]) -> None:
        """Adds lines: the name, the label and the image bytes of each."""
        values = {}
        for name, label, image in lines:
            self.count += 1
            values[_key("image", self.count)] = image
            values[_key("label", self.count)] = label.encode()
            values[_key("name", self.count)] = name.encode(errors="surrogateescape")
        self._write(values)

    def close(self) -> None:
        """Writes the number of lines and flushes the database to the disk."""
        self._write({_COUNT: str(self.count).encode()})
        self._environment.sync(True)

    def __enter__(self) -> "LmdbWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()

    def _write(self, values: dict[bytes, bytes]) -> None:
        while not self._try_write(values):
            self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def _try_write(self, values: dict[bytes, bytes]) -> bool:
        """Writes all values, or none of them if the map is full; returns whether they were written."""
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key, value)
        except lmdb.MapFullError:
            return False
        return True
