"""Draws the folders of the package as layers: each imports the layers below it only.

python tools/docs/architecture.py     # writes docs/images/architecture.svg
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"

# From the top down: the color of the layer and its folders.
COMMANDS, OCR, OPERATORS, NATIVE = "#c5cae9", "#ffe0b2", "#c8e6c9", "#cfd8dc"
LAYERS = [
    (COMMANDS, ["commands · cli"]),
    (OCR, ["ocr / training"]),
    (OCR, ["ocr / evaluation"]),
    (OCR, ["ocr / reading"]),
    (OCR, ["ocr / checkpoints", "ocr / data"]),
    (OCR, ["ocr / images"]),
    (OCR, ["ocr / system"]),
    (OPERATORS, ["ctc", "models"]),
    (OPERATORS, ["ops", "text"]),
    (NATIVE, [*sorted(path.parent.name for path in ROOT.glob("csrc/*/cpu.cpp")), "text"]),
    (NATIVE, ["forward_backward"]),
    (NATIVE, ["targets", "common"]),
]
LABELS = {0: "crnn-ext", 1: "Python, extra [ocr]", 7: "Python, core", 9: "csrc: C++ and CUDA"}
WIDTH, HEIGHT, GAP = 10.0, 0.62, 0.16


def main() -> None:
    """Draws the picture."""
    matplotlib.rcParams["svg.hashsalt"] = "crnn_ext"  # the same file every time
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for number, (color, folders) in enumerate(LAYERS):
        bottom = -number * (HEIGHT + GAP)
        width = (WIDTH - GAP * (len(folders) - 1)) / len(folders)
        for column, folder in enumerate(folders):
            left = column * (width + GAP)
            axes.add_patch(
                FancyBboxPatch(
                    (left, bottom),
                    width,
                    HEIGHT,
                    boxstyle="round,pad=0,rounding_size=0.1",
                    fc=color,
                    ec="none",
                )
            )
            axes.text(left + width / 2, bottom + HEIGHT / 2, folder, ha="center", va="center", fontsize=10)
        if number in LABELS:
            axes.text(-0.2, bottom + HEIGHT / 2, LABELS[number], ha="right", va="center", fontsize=9)
    axes.set_xlim(-2.6, WIDTH + 0.1)
    axes.set_ylim(-len(LAYERS) * (HEIGHT + GAP) + HEIGHT, HEIGHT + 0.1)
    axes.axis("off")
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "architecture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
