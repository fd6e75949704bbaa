"""Lines of text: images with labels, and what is wrong with those that are none."""

import io
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from crnn_ext.ocr.images.image_files import ImageError, Mode, image_size, read_image

# A label is one line of characters, and tabs part labels from names.
_NO_CHARACTERS = {
    "tab in label": re.compile(r"\t"),
    "line break in label": re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]"),
    "control character in label": re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"),
}


class DataError(ValueError):
    """Data that cannot be used at all; the message names its path and what is wrong with it."""


class DataIssue(NamedTuple):
    """What is wrong with one item of a data set: its name, a kind by which problems are counted, details."""

    name: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, self))

    @property
    def name_and_detail(self) -> str:
        """Name and details, where the kind is told already."""
        return ": ".join(filter(None, (self.name, self.detail)))


class LineRecords:
    """What a reader finds in a data set, item by item: lines, and those that are none.

    Attributes:
        names, labels, images: of each line; what stands for its image is up to the reader.
        normalized_to_nfc: indices of the lines whose labels were not in NFC, which they are now.
        skipped: what is no line.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.labels: list[str] = []
        self.images: list[Any] = []
        self.normalized_to_nfc: list[int] = []
        self.skipped: list[DataIssue] = []

    def add(self, name: str, label: str | bytes, image: Any) -> None:
        """Adds a line, or what is wrong with its label; bytes are to be UTF-8."""
        if isinstance(label, bytes):
            try:
                label = label.decode()
            except UnicodeDecodeError as error:
                self.skip(name, "label not in UTF-8", f"byte {error.start} is 0x{label[error.start]:02X}")
                return
        if not label.strip():
            self.skip(name, "empty label")
            return
        for kind, pattern in _NO_CHARACTERS.items():
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
        """Adds what is no line."""
        self.skipped.append(DataIssue(name, kind, detail))


class LineSource(ABC):
    """A data set: the names and labels of its lines in memory, the images where they are.

    It pickles, and processes that get it open what they read themselves.

    Attributes:
        path: of the data set.
        names: of the lines, as the data set calls them.
        labels: of the lines, in NFC, never empty, without tabs, line breaks and other control characters.
        normalized_to_nfc: indices of the lines whose labels were not in NFC before.
        skipped: the items of the data set that are no lines, with the reason for each.
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
            ImageError: it cannot be read. As in what follows, the message leaves out the name of the line.
        """

    def image_bytes(self, index: int) -> bytes:
        """The bytes of the image file of a line.

        Raises:
            ImageError: they cannot be read.
        """
        file = self.image_file(index)
        try:
            return file.read_bytes() if isinstance(file, Path) else file.getvalue()
        except OSError as error:
            raise ImageError(error.strerror) from error

    def image(self, index: int, mode: Mode) -> Image.Image:
        """The image of a line as `crnn_ext.ocr.images.image_files.read_image` gives it.

        Raises:
            ImageError: it is no usable image.
        """
        return read_image(self.image_file(index), mode)

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height of the image of a line, from its header; no pixel is decoded.

        Raises:
            ImageError: it has no usable header.
        """
        return image_size(self.image_file(index))
