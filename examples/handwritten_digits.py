"""Trains a small CRNN on strings of handwritten digits, then reads strings of digits that it has never seen.

The digits are the 1,797 scans that scikit-learn ships. They are split before any string is composed: no scan
in a held-out string occurs in a string for training, or for validation, by which the best network is chosen.
Takes one to two minutes on two CPU cores and downloads nothing.

Into the output folder go `training/`, `validation/` and `held_out/`, image files of strings with
`labels.txt`; `run/`, what `crnn-ext train` leaves there, above all `best.safetensors`, the checkpoint;
`readings.png`, what the network makes of some strings; and `strings/`, held-out strings as image files of
several sizes, for `crnn-ext read`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from crnn_ext.ocr import Recognizer
from crnn_ext.ocr.reading.plot import plot_readings
from crnn_ext.ocr.training import TrainingConfig, train
from crnn_ext.ocr.training.console import ConsoleLogger

SEED = 0
TRAINING_SCANS, TRAINING_STRINGS = 1500, 4000
VALIDATION_SCANS, VALIDATION_STRINGS = 100, 300
HELD_OUT_STRINGS = 1000
HEIGHT = 32


class Scans(NamedTuple):
    """Single handwritten digits: their ink, from 0 to 16, in 8 x 8 pixels, and which digits they are."""

    ink: np.ndarray
    digits: np.ndarray


def draw(ink: np.ndarray, height: int, slant: float, stretch: float) -> np.ndarray:
    """A scan enlarged to uint8 (height, W), ink as 255, cut to the columns that have any."""
    width = 0.85 * height * stretch
    room = round(width + abs(slant) * height)
    # Image.transform asks which point of the scan shows at the point (x, y) of the result.
    scale = 8 / width
    from_left = 4 - scale * (room + slant * height) / 2
    coefficients = (scale, scale * slant, from_left, 0, 8 / height, 0)
    scan = Image.fromarray((ink * 255 / 16).astype(np.uint8))
    enlarged = scan.transform((room, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    pixels = np.asarray(enlarged)
    inked = np.flatnonzero(pixels.max(axis=0) > 40)
    return pixels[:, inked[0] : inked[-1] + 1]


def compose(
    scans: Scans, length: int, distortion: float, random: np.random.Generator
) -> tuple[np.ndarray, str]:
    """A string of random scans with random gaps, black on white, uint8 (HEIGHT, W), and its text."""
    chosen = random.integers(len(scans.digits), size=length)
    height = random.integers(18, 25)
    top = random.integers(1, HEIGHT - height)
    slant = distortion * random.uniform(-0.25, 0.25)
    pieces = []
    for ink in scans.ink[chosen]:
        stretch = 1 + distortion * random.uniform(-0.1, 0.1)
        piece = draw(ink, height, slant + distortion * random.uniform(-0.05, 0.05), stretch)
        above = top + random.integers(-1, 2)
        pieces.append(np.pad(piece, ((above, HEIGHT - height - above), (random.integers(6), 0))))
    return 255 - np.hstack(pieces), "".join(map(str, scans.digits[chosen]))


def place(string: np.ndarray, width: int, random: np.random.Generator) -> np.ndarray:
    """The string somewhere on a white page of that width."""
    left = random.integers(width - string.shape[1] + 1)
    return np.pad(string, ((0, 0), (left, width - string.shape[1] - left)), constant_values=255)


def strings(
    scans: Scans, count: int, distortion: float, random: np.random.Generator
) -> list[tuple[np.ndarray, str]]:
    """Strings of three to five scans, each on a page of its own width, with their texts."""
    lines = []
    for _ in range(count):
        string, text = compose(scans, random.integers(3, 6), distortion, random)
        lines.append((place(string, string.shape[1] + random.integers(2, 20), random), text))
    return lines


def write_data_set(lines: list[tuple[np.ndarray, str]], folder: Path) -> Path:
    """Writes the images and, beside them, `labels.txt` with a path and a text in each line."""
    folder.mkdir(parents=True)
    labels = []
    for number, (page, text) in enumerate(lines):
        name = f"{number:04}.png"
        Image.fromarray(page).save(folder / name)
        labels.append(f"{name}\t{text}\n")
    (folder / "labels.txt").write_text("".join(labels))
    return folder


def share_right(found: Sequence[str], truth: Sequence[str]) -> float:
    """The share of whole strings that are right."""
    return sum(map(str.__eq__, found, truth)) / len(truth)


def write_image_files(pages: Sequence[np.ndarray], texts: Sequence[str], folder: Path) -> list[Path]:
    """Writes the pages as image files, each larger than the one before, every third a JPEG."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (page, text) in enumerate(zip(pages, texts, strict=True), start=1):
        image = Image.fromarray(page)
        paths.append(folder / f"{text}.{'png' if number % 3 else 'jpg'}")
        image.resize((image.width * number // 2, image.height * number // 2)).save(paths[-1])
    return paths


def main() -> None:
    """Trains, evaluates and writes the files; exits with status 1 if fewer than 90 % are right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--data-only", action="store_true", help="write the strings and train nothing")
    arguments = parser.parse_args()
    output = arguments.output
    if output.exists():
        parser.error(f"--output must be a new folder, and {output} is there already")

    random = np.random.default_rng(SEED)
    digits = load_digits()
    order = random.permutation(len(digits.target))
    training, validation, held_out = (
        strings(Scans(digits.images[part], digits.target[part]), count, distortion, random)
        for part, count, distortion in zip(
            np.split(order, [TRAINING_SCANS, TRAINING_SCANS + VALIDATION_SCANS]),
            (TRAINING_STRINGS, VALIDATION_STRINGS, HELD_OUT_STRINGS),
            (1, 0, 0),
            strict=True,
        )
    )
    training_set = write_data_set(training, output / "training")
    validation_set = write_data_set(validation, output / "validation")
    held_out_set = write_data_set(held_out, output / "held_out")
    if arguments.data_only:
        print(f"Strings are in {training_set}, {validation_set} and {held_out_set}.")
        return

    config = TrainingConfig(
        data=str(training_set),
        val=str(validation_set),
        width=0.25,
        hidden=96,
        epochs=5,
        batch_pixels=32 * HEIGHT * 100,  # 32 strings
        lr=2e-3,
        warmup=0.2,
        seed=SEED,
    )
    run = output / "run"
    train(config, run, callbacks=[ConsoleLogger(sys.stdout)])

    checkpoint = run / "best.safetensors"
    recognizer = Recognizer.load(checkpoint)
    pages, texts = zip(*held_out, strict=True)
    readings = recognizer(pages)
    accuracy = share_right([reading.text for reading in readings], texts)
    print("\ntruth   read    confidence")
    for reading, text in list(zip(readings, texts, strict=True))[:12]:
        print(
            f"{text:7} {reading.text:7} {reading.confidence:.4f}  {'' if reading.text == text else 'wrong'}"
        )
    print(f"\n{accuracy:.1%} of {len(texts)} held-out strings are right, from the first digit to the last.")

    plot_readings(recognizer, pages[:4], output / "readings.png")
    files = write_image_files(pages[:6], texts[:6], output / "strings")
    command = os.path.relpath(Path(sys.executable).with_name("crnn-ext"))
    print(f"What the network sees in some of them: {output / 'readings.png'}")
    print("To read image files:", command, "read", checkpoint, *files)
    if accuracy < 0.9:
        sys.exit("Fewer than 90 % are right: something is broken.")


if __name__ == "__main__":
    main()
