"""Trains a small CRNN on strings of handwritten digits, then reads strings of digits that it has never seen.

The digits are the 1,797 scans that scikit-learn ships. They are split before any string is composed: no scan
in a held-out string occurs in a training string. Takes one to two minutes on two CPU cores and downloads
nothing.

Into the output folder go `model.safetensors`, the checkpoint; `readings.png`, what the network makes of some
strings; and `strings/`, held-out strings as image files of several sizes, for the command `crnn-ext read`.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from crnn_ext.ctc import CTCLoss
from crnn_ext.ocr import Architecture, Checkpoint, Preprocessing, Recognizer, save_checkpoint
from crnn_ext.ocr.plot import plot_readings
from crnn_ext.text import Charset

SEED = 0
TRAINING_SCANS = 1500
HELD_OUT_STRINGS = 1000
STEPS = 600
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
HEIGHT = 32

CHARSET = Charset("0123456789")
PREPROCESSING = Preprocessing(height=HEIGHT)
ARCHITECTURE = Architecture("CRNN", CHARSET.num_classes, nh=96, width=0.25)


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


def training_batch(scans: Scans, random: np.random.Generator) -> tuple[torch.Tensor, list[str]]:
    """Distorted strings of one length on pages of one width, (BATCH_SIZE, 1, HEIGHT, W); their texts."""
    length = random.integers(3, 6)
    strings, texts = zip(*(compose(scans, length, 1, random) for _ in range(BATCH_SIZE)), strict=True)
    width = max(string.shape[1] for string in strings) + 4
    pages = [PREPROCESSING(place(string, width, random)) for string in strings]
    return torch.stack(pages), list(texts)


def held_out_strings(scans: Scans, random: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """Strings of three to five scans as they are, each on a page of its own width; their texts."""
    pages, texts = [], []
    for _ in range(HELD_OUT_STRINGS):
        string, text = compose(scans, random.integers(3, 6), 0, random)
        pages.append(place(string, string.shape[1] + random.integers(2, 20), random))
        texts.append(text)
    return pages, texts


def train(
    scans: Scans, pages: list[np.ndarray], texts: list[str], random: np.random.Generator
) -> torch.nn.Module:
    """The trained network. The held-out pages and texts only serve to show how far it is."""
    network = ARCHITECTURE.build()
    # CTC first of all teaches a network that most frames are blank, so hard that it may never again tell one
    # image from another. This one knows from the start.
    network.rnn[1].embedding.bias.data[CHARSET.blank] += 3
    criterion = CTCLoss(blank=CHARSET.blank)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.2)
    accuracy = 0.0
    bar = tqdm(range(1, STEPS + 1), desc="training", disable=None)  # no bar in a log, but lines
    for step in bar:
        images, image_texts = training_batch(scans, random)
        targets, target_lengths = CHARSET.encode(image_texts)
        logits = network(images)
        input_lengths = network.output_lengths([images.shape[-1]] * len(images))
        loss = criterion(logits, targets, input_lengths, target_lengths)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        schedule.step()

        if step % 50 == 0:
            readings = Recognizer(network, CHARSET, PREPROCESSING)(pages[:100])
            accuracy = share_right([reading.text for reading in readings], texts[:100])
            network.train()
        blanks = (logits.argmax(-1) == CHARSET.blank).float().mean().item()
        status = (
            f"loss {loss.item():.3f}, {blanks:.0%} of frames blank, {accuracy:.0%} of held-out strings right"
        )
        bar.set_postfix_str(status)
        if bar.disable and step % 50 == 0:
            print(f"step {step:3} of {STEPS}: {status}", flush=True)
    return network


def share_right(found: list[str], truth: list[str]) -> float:
    """The share of whole strings that are right."""
    return sum(map(str.__eq__, found, truth)) / len(truth)


def write_image_files(pages: list[np.ndarray], texts: list[str], folder: Path) -> list[Path]:
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
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    digits = load_digits()
    order = random.permutation(len(digits.target))
    training, held_out = (
        Scans(digits.images[part], digits.target[part]) for part in np.split(order, [TRAINING_SCANS])
    )
    pages, texts = held_out_strings(held_out, random)

    network = train(training, pages, texts, random)
    checkpoint = output / "model.safetensors"
    save_checkpoint(checkpoint, Checkpoint(network, ARCHITECTURE, CHARSET, PREPROCESSING))

    recognizer = Recognizer.load(checkpoint)
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
