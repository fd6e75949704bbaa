"""Draws the pictures of the gallery from a run of the demo and, if given, lines of a book.

make demo
python tools/docs/gallery.py demo
python tools/docs/gallery.py demo --model MODEL --lines IMAGE...     # the first image is the one of README.md
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from crnn_ext.ocr import Recognizer, evaluate
from crnn_ext.ocr.data import open_lines
from crnn_ext.ocr.data.augment import Augmentation
from crnn_ext.ocr.reading.plot import plot_readings

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
BLUE, ORANGE = "#3949ab", "#ef6c00"


def draw_plateau(run: Path, path: Path) -> None:
    """Loss and share of blank frames over the steps of a run."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if entry["event"] == "step"]
    figure, left = plt.subplots(figsize=(8, 3), layout="constrained")
    numbers = [step["step"] for step in steps]
    left.plot(numbers, [step["loss"] for step in steps], color=BLUE)
    left.set_xlabel("step")
    left.set_ylabel("loss, nats per character", color=BLUE)
    right = left.twinx()
    right.plot(numbers, [100 * step["blank"] for step in steps], color=ORANGE)
    right.set_ylabel("blank frames, %", color=ORANGE)
    right.set_ylim(0, 105)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_calibration(recognizer: Recognizer, data: Path, path: Path) -> None:
    """Confidence against the share of correct lines, and the number of lines in each bin."""
    calibration = evaluate(recognizer, open_lines(data)).calibration
    filled = [bin_ for bin_ in calibration.bins if bin_.lines]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(4.5, 5.5), height_ratios=[3, 1], sharex=True, layout="constrained"
    )
    above.plot([0, 1], [0, 1], color="#9e9e9e", ls="--", lw=1)
    above.plot([bin_.confidence for bin_ in filled], [bin_.accuracy for bin_ in filled], "o-", color=BLUE)
    above.set_ylabel("share of correct lines")
    above.set_title(f"expected calibration error {calibration.expected_error:.3f}", fontsize=10)
    below.bar(
        [(bin_.low + bin_.high) / 2 for bin_ in filled], [bin_.lines for bin_ in filled], 0.08, color=BLUE
    )
    below.set_yscale("log")
    below.set_ylabel("lines")
    below.set_xlabel("confidence")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_augmentation(image: Image.Image, path: Path, rows: int = 8, columns: int = 2) -> None:
    """The image, and what augmentation makes of it in different epochs."""
    augmentation = Augmentation(strength=1.0)
    pixels = np.asarray(image.convert("L"))
    sheet = [pixels] + [
        augmentation(pixels, np.random.default_rng(epoch)) for epoch in range(rows * columns - 1)
    ]
    figure, cells = plt.subplots(rows, columns, figsize=(10, 0.75 * rows), layout="constrained")
    for number, (cell, line) in enumerate(zip(cells.flat, sheet, strict=True)):
        cell.imshow(line, cmap="gray", vmin=0, vmax=255)
        cell.set_xticks([])
        cell.set_yticks([])
        for spine in cell.spines.values():
            spine.set_color(ORANGE if number == 0 else "#cfd8dc")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draws the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the folder that `make demo` writes")
    parser.add_argument("--model", help="a checkpoint that reads the lines")
    parser.add_argument("--lines", nargs="+", default=[], metavar="IMAGE", help="images of lines of a book")
    arguments = parser.parse_args()

    digits = Recognizer.load(arguments.demo / "run" / "best.safetensors")
    held_out = arguments.demo / "held_out"
    draw_plateau(arguments.demo / "run", IMAGES / "plateau.png")
    draw_calibration(digits, held_out, IMAGES / "calibration.png")
    plot_readings(digits, sorted(map(str, held_out.glob("*.png")))[:2], IMAGES / "digits.png")
    if arguments.lines:
        recognizer = Recognizer.load(arguments.model)
        plot_readings(recognizer, arguments.lines[:1], IMAGES / "line.png")
        plot_readings(recognizer, arguments.lines[1:], IMAGES / "lines.png")
        draw_augmentation(Image.open(arguments.lines[0]), IMAGES / "augmentation.png")


if __name__ == "__main__":
    main()
