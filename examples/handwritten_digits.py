"""Train a small CRNN on strings of handwritten digits and evaluate it on unseen strings.

The digits are the 1,797 scans that scikit-learn includes. They are split before strings are composed: no scan
of a held-out string occurs in a training or validation string. The validation strings select the best
network. Training takes one to two minutes on two CPU cores and needs no download.

The output folder contains:

- `training/`, `validation/` and `held_out/`: image files of strings, with `labels.txt`
- `run/`: the files of a training run, including the checkpoint `best.safetensors`
- `readings.png`: what the network reads in some strings
- `strings/`: held-out strings as image files of several sizes, for `crnn-ext read`
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
    """Single handwritten digits: their ink from 0 to 16 in 8 x 8 pixels, and their values."""

    ink: np.ndarray
    digits: np.ndarray


def draw(ink: np.ndarray, height: int, slant: float, stretch: float) -> np.ndarray:
    """Returns a scan enlarged to uint8 (height, W), with ink as 255, cropped to the columns with ink."""
    width = 0.85 * height * stretch
    room = round(width + abs(slant) * height)
    # The coefficients map a point (x, y) of the result to a point of the scan.
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
    """Returns a string of random scans with random gaps, black on white, uint8 (HEIGHT, W), and its text."""
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
    """Returns a white page of the given width with the string at a random position."""
    left = random.integers(width - string.shape[1] + 1)
    return np.pad(string, ((0, 0), (left, width - string.shape[1] - left)), constant_values=255)


def strings(
    scans: Scans, count: int, distortion: float, random: np.random.Generator
) -> list[tuple[np.ndarray, str]]:
    """Returns strings of three to five scans on pages of different widths, with their texts."""
    lines = []
    for _ in range(count):
        string, text = compose(scans, random.integers(3, 6), distortion, random)
        lines.append((place(string, string.shape[1] + random.integers(2, 20), random), text))
    return lines


def write_data_set(lines: list[tuple[np.ndarray, str]], folder: Path) -> Path:
    """Writes the images and `labels.txt`, which has a path and a text in each line."""
    folder.mkdir(parents=True)
    labels = []
    for number, (page, text) in enumerate(lines):
        name = f"{number:04}.png"
        Image.fromarray(page).save(folder / name)
        labels.append(f"{name}\t{text}\n")
    (folder / "labels.txt").write_text("".join(labels))
    return folder


def line_accuracy(found: Sequence[str], truth: Sequence[str]) -> float:
    """Returns the fraction of strings without an error."""
    return sum(map(str.__eq__, found, truth)) / len(truth)


def write_image_files(pages: Sequence[np.ndarray], texts: Sequence[str], folder: Path) -> list[Path]:
    """Writes the pages as image files of increasing size, every third as a JPEG."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (page, text) in enumerate(zip(pages, texts, strict=True), start=1):
        image = Image.fromarray(page)
        paths.append(folder / f"{text}.{'png' if number % 3 else 'jpg'}")
        image.resize((image.width * number // 2, image.height * number // 2)).save(paths[-1])
    return paths


def main() -> None:
    """Trains, evaluates and writes the files. Exits with status 1 below 90 % accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="output folder, must not exist"
    )
    parser.add_argument("--data-only", action="store_true", help="only write the data sets")
    arguments = parser.parse_args()
    output = arguments.output
    if output.exists():
        parser.error(f"--output must be a new folder, but {output} exists")

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
        print(f"Wrote {training_set}, {validation_set} and {held_out_set}.")
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
    accuracy = line_accuracy([reading.text for reading in readings], texts)
    print("\ntruth   read    confidence")
    for reading, text in list(zip(readings, texts, strict=True))[:12]:
        print(
            f"{text:7} {reading.text:7} {reading.confidence:.4f}  {'' if reading.text == text else 'wrong'}"
        )
    print(f"\n{accuracy:.1%} of {len(texts)} held-out strings are read without an error.")

    plot_readings(recognizer, pages[:4], output / "readings.png")
    files = write_image_files(pages[:6], texts[:6], output / "strings")
    command = os.path.relpath(Path(sys.executable).with_name("crnn-ext"))
    print(f"Plot of some readings: {output / 'readings.png'}")
    print("To read image files:", command, "read", checkpoint, *files)
    if accuracy < 0.9:
        sys.exit("accuracy is below 90 %")


if __name__ == "__main__":
    main()
