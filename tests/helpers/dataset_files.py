"""Write data sets of text lines in every supported layout."""

import io
import json

import numpy as np
import pytest
from helpers.paths import SHARED_DATA
from PIL import Image

FRAKTUR = SHARED_DATA / "fraktur_lines"
requires_fraktur = pytest.mark.skipif(
    not FRAKTUR.is_dir(), reason="../shared/data/fraktur_lines is not there"
)


def image_bytes(width=40, height=20, seed=0, file_format="PNG"):
    """Return the bytes of an image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def truncate(path):
    """Cut an image file in half; its header stays intact."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_labels_dataset(folder, lines, name="labels.txt"):
    """Write a label file beside images, for the lines {path: label}. Return its path."""
    for number, path in enumerate(lines):
        write(folder / path, image_bytes(40 + number, seed=number))
    return write(folder / name, "".join(f"{path}\t{label}\n" for path, label in lines.items()))


def write_kraken_dataset(folder, lines):
    """Write x.png beside x.gt.txt as kraken does, for the lines {x: label}."""
    for number, (stem, label) in enumerate(lines.items()):
        write(folder / f"{stem}.png", image_bytes(40 + number, seed=number))
        write(folder / f"{stem}.gt.txt", label + "\n")


def write_doctr_dataset(folder, lines):
    """Write labels.json beside images/ as docTR does, for the lines {name: label}."""
    for number, name in enumerate(lines):
        write(folder / "images" / name, image_bytes(40 + number, seed=number))
    write(folder / "labels.json", json.dumps(lines))


def write_lmdb(folder, values):
    """Write an LMDB database with these keys and values."""
    import lmdb

    folder.mkdir(parents=True)
    with (
        lmdb.open(str(folder), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else value.encode())


def write_lmdb_dataset(folder, labels):
    """Write an LMDB database in the layout of other toolkits."""
    values = {"num-samples": str(len(labels))}
    for number, label in enumerate(labels, 1):
        values[f"image-{number:09d}"] = image_bytes(39 + number, seed=number - 1)
        values[f"label-{number:09d}"] = label
    write_lmdb(folder, values)
