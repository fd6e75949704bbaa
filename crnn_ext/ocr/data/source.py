"""Sources of text lines, images with labels, and the issues of items that are skipped."""

import io
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from crnn_ext.ocr.images.image_files import ImageError, Mode, image_size, read_image

# A label is a single line; tabs separate labels from names.
_FORBIDDEN = {
    "tab in label": re.compile(r"\t"),
    "line break in label": re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]"),
    "control character in label": re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"),
}


class DataError(ValueError):
    """The data set is unusable; the message names its path and the reason."""


class DataIssue(NamedTuple):
    """An issue with one item of a data set: the name of the item, the kind of issue, and details."""

    name: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, self))

    @property
    def name_and_detail(self) -> str:
        """The name and the details, for lists grouped by kind."""
        return ": ".join(filter(None, (self.name, self.detail)))


class LineRecords:
    """The items of a data set as a reader collects them: lines, and skipped items.

    Attributes:
        names, labels, images: of each line; the reader chooses how it represents images.
        normalized_to_nfc: indices of the lines whose labels were not in NFC and have been normalized.
        skipped: the issues of the items that are not lines.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.labels: list[str] = []
        self.images: list[Any] = []
        self.normalized_to_nfc: list[int] = []
        self.skipped: list[DataIssue] = []

    def add(self, name: str, label: str | bytes, image: Any) -> None:
        """Adds a line, or the issue with its label; bytes are decoded as UTF-8."""
        if isinstance(label, bytes):
            try:
                label = label.decode()
            except UnicodeDecodeError as error:
                self.skip(name, "label not in UTF-8", f"byte {error.start} is 0x{label[error.start]:02X}")
                return
        if not label.strip():
            self.skip(name, "empty label")
            return
        for kind, pattern in _FORBIDDEN.items():
            if found := pattern.search(label):
                self.skip(name, kind, f"U+{ord(found[0]):04X} at position {found.start()}")
                return
        composed = unicodedata.normalize("NFC", label)
        if composed != label:
            self.normalized_to_nfc.append(len(self.labels))
        self.names.append(name)
        self.labels.append(composed)
        self.images.append(image)

    def skip(self, name: str, kind: str, detail: str = "") -> None:
        """Adds an item that is not a line."""
        self.skipped.append(DataIssue(name, kind, detail))


class LineSource(ABC):
    """A data set: the names and labels of its lines are in memory, images are read on demand.

    A source can be pickled; each process opens the files that it reads.

    Attributes:
        path: the path of the data set.
        names: the names of the lines in the data set.
        labels: the labels, in NFC; they are not empty and have no tabs, line breaks or control characters.
        normalized_to_nfc: indices of the lines whose labels were not in NFC.
        skipped: the issues of the items of the data set that are not lines.
    """

    def __init__(self, path: Path, items: LineRecords) -> None:
        self.path = path
        self.names: Sequence[str] = items.names
        self.labels: Sequence[str] = items.labels
        self.normalized_to_nfc: Sequence[int] = items.normalized_to_nfc
        self.skipped: Sequence[DataIssue] = items.skipped
        self._images = items.images

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def image_file(self, index: int) -> Path | io.BytesIO:
        """The image file of a line, or its bytes.

        Raises:
            ImageError: the file cannot be read. As in the methods below, the message omits the line's name.
        """

    def image_bytes(self, index: int) -> bytes:
        """The bytes of the image file of a line.

        Raises:
            ImageError: the file cannot be read.
        """
        file = self.image_file(index)
        try:
            return file.read_bytes() if isinstance(file, Path) else file.getvalue()
        except OSError as error:
            raise ImageError(error.strerror) from error

    def image(self, index: int, mode: Mode) -> Image.Image:
        """Reads the image of a line, as `crnn_ext.ocr.images.read_image` does.

        Raises:
            ImageError: the image cannot be read.
        """
        return read_image(self.image_file(index), mode)

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height of the image of a line, from its header; no pixel is decoded.

        Raises:
            ImageError: the header cannot be read.
        """
        return image_size(self.image_file(index))
