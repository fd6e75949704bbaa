"""Synthetic text lines that a tiny network can learn: each character is a pattern of stripes."""

import numpy as np
from helpers.dataset_files import write
from PIL import Image

CHARACTERS = "abcd"

# Inked rows of each character, out of eight.
_PATTERNS = {"a": (0, 1), "b": (2, 3), "c": (4, 5), "d": (6, 7)}


def striped_image(text, seed=0):
    """Return an image of the text: dark on light, 16 rows, about 14 columns per character."""
    random = np.random.default_rng(seed)
    pieces = [np.full((16, 4), 255, np.uint8)]
    for character in text:
        piece = np.full((16, 10 + random.integers(3)), 255, np.uint8)
        for row in _PATTERNS[character]:
            piece[2 * row : 2 * row + 2] = random.integers(0, 60)
        pieces += [piece, np.full((16, 3 + random.integers(3)), 255, np.uint8)]
    return Image.fromarray(np.hstack(pieces))


def write_striped_dataset(folder, count=48, seed=0, longest=6):
    """Write a label file beside images of random texts. Return the folder."""
    random = np.random.default_rng(seed)
    labels = []
    for number in range(count):
        text = "".join(random.choice(list(CHARACTERS), random.integers(1, longest + 1)))
        path = folder / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        striped_image(text, seed * 1000 + number).save(path)
        labels.append(f"{path.name}\t{text}\n")
    write(folder / "labels.txt", "".join(labels))
    return folder
