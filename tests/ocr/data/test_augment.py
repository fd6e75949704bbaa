"""Augmentation is deterministic, takes any size, stays within its bounds and keeps text legible."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.command_line import run_without
from helpers.dataset_files import write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from crnn_ext.ocr import Preprocessing
from crnn_ext.ocr.data import LineDataset, augment, collate, open_lines
from crnn_ext.ocr.data.augment import Augmentation

SEEDS = st.integers(0, 2**32 - 1)
# Distortions that do not move pixels.
IN_PLACE = [distorted for _, distorted in augment._DISTORTIONS if distorted is not augment._warp]
ALL = [*IN_PLACE, augment._warp]


def line(width=300, height=40, paper=(240, 236, 228), ink=(32, 24, 16), channels=1):
    """Return an image of text from end to end: uint8 `(H, W)` or `(H, W, 3)`."""
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    draw.text((2, height // 5), "a line of text, and some more of it; " * 12, ink, font_size=height // 2)
    return np.array(image if channels == 3 else image.convert("L"))


def augmented(image, seed, strength=1.0):
    return Augmentation(strength)(image, np.random.default_rng(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_strength_0_is_identity(channels):
    image = line(channels=channels)
    assert augmented(image, 0, strength=0) is image


@pytest.mark.parametrize("distorted", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_distortion_changes_image_by_seed(distorted, channels):
    image = line(channels=channels)
    before = image.copy()
    results = [distorted(image, 1.0, np.random.default_rng(seed)) for seed in (1, 2, 1)]
    assert all(result.shape[2:] == image.shape[2:] and result.dtype == np.uint8 for result in results)
    assert not np.array_equal(results[0], image)
    assert not np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert np.array_equal(image, before)


@given(
    st.integers(1, 120),
    st.integers(1, 900),
    st.sampled_from([1, 3]),
    st.floats(0.01, 2),
    st.booleans(),
    SEEDS,
)
def test_augmentation_any_size(height, width, channels, strength, flipped, seed):
    shape = (height, width) if channels == 1 else (height, width, 3)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    image.flags.writeable = False  # like arrays from Pillow
    if flipped:
        image = image[:, ::-1]
    for distorted in ALL:
        assert distorted(image, strength, np.random.default_rng(seed)).shape[::2] == shape[::2]
    result = augmented(image, seed, strength)
    assert result.dtype == np.uint8
    assert result.shape[::2] == shape[::2]


@pytest.mark.parametrize("shape", [(1, 1), (300, 2), (1, 20_000), (120, 20_000), (2000, 2, 3)])
def test_distortion_extreme_sizes(shape):
    for distorted in ALL:
        assert distorted(np.zeros(shape, np.uint8), 2.0, np.random.default_rng(0)).shape[0] == shape[0]


def test_augmentation_skips_too_wide_image():
    image = line(width=24_001)
    assert augmented(image, 1) is image
    assert augmented(image[:, 1:], 1).shape != image[:, 1:].shape


# Images with fewer than 8 rows are hardly legible.
@given(st.integers(8, 120), st.integers(1, 3000), st.floats(0, 2), SEEDS)
def test_warp_width_within_bounds(height, width, strength, seed):
    """The number of columns that the network sees stays within the documented bounds."""
    preprocessing = Preprocessing()
    warped = augment._warp(np.zeros((height, width), np.uint8), strength, np.random.default_rng(seed))
    before = preprocessing.columns(width, height)
    after = preprocessing.columns(warped.shape[1], warped.shape[0])
    assert math.floor(before * (1 - 0.1 * strength)) <= after
    assert after <= before * (1 + 0.1 * strength) + 0.45 * strength * 32 + 32 / height + 1.5


def test_warp_width_covers_allowed_range():
    widths = [
        augment._warp(np.zeros((40, 4000), np.uint8), 1.0, np.random.default_rng(seed)).shape[1]
        for seed in range(100)
    ]
    assert 3600 <= min(widths) < 3700
    assert 4300 < max(widths) < 4450


@given(st.integers(32, 120), st.integers(500, 1500), SEEDS)
def test_warp_keeps_line_ends(height, width, seed):
    """A stroke at each end keeps its width in all rows except those near the top and bottom."""
    stroke = height // 8
    image = np.zeros((height, width), np.uint8)
    image[:, :stroke] = image[:, -stroke:] = 255
    warped = augment._warp(image, 1.0, np.random.default_rng(seed)) / 255.0
    rows = warped[height // 5 : -(height // 5)]
    half = warped.shape[1] // 2
    for end in (rows[:, :half], rows[:, half:]):
        assert 0.7 * stroke < end.sum(1).min()
        assert end.sum(1).max() < 1.35 * stroke


@given(st.lists(st.integers(0, 255), min_size=3, max_size=3), SEEDS)
def test_warp_fills_with_background(paper, seed):
    image = line(paper=tuple(paper), channels=3)
    blank = np.broadcast_to(np.array(paper, np.uint8), image.shape)
    warped = augment._warp(blank, 1.0, np.random.default_rng(seed))
    assert (warped == np.array(paper)).all()
    warped = augment._warp(image, 2.0, np.random.default_rng(seed))
    assert np.median(warped[[0, -1]], axis=(0, 1)).tolist() == paper


@given(st.integers(40, 255), st.floats(0.15, 1), st.booleans(), SEEDS)
def test_distortion_keeps_contrast(light, contrast, inverted, seed):
    """Each distortion keeps most of the contrast, however low, also of light text on a dark background."""
    dark = round(light * (1 - contrast))
    paper, ink = (dark, light) if inverted else (light, dark)
    image = np.full((40, 200), paper, np.uint8)
    image[10:30, 20:180] = ink
    for distorted in IN_PLACE:
        result = distorted(image, 1.0, np.random.default_rng(seed)).astype(float)
        left = (result[10:30, 20:180].mean() - result[:6].mean()) / (ink - paper)
        assert 0.35 < left < 1.7, distorted.__name__


@pytest.mark.parametrize("distorted", [augment._noise, augment._speckle])
@pytest.mark.parametrize("ink", [0, 150, 190])
def test_noise_proportional_to_contrast(distorted, ink):
    image = np.full((40, 200), 200, np.uint8)
    image[10:30, 20:180] = ink
    results = [distorted(image, 1.0, np.random.default_rng(seed)) for seed in range(20)]
    deviations = [result[:6].astype(float).std() for result in results]
    assert 0.03 * (200 - ink) <= max(deviations) < 0.1 * (200 - ink) + 0.6  # 0.6 for rounding


def test_uneven_ink_keeps_minimum_contrast():
    image = np.full((40, 800), 255, np.uint8)
    image[10:30] = 0
    lightest = max(
        augment._uneven_ink(image, 2.0, np.random.default_rng(seed))[10:30].max() for seed in range(200)
    )
    assert 0.6 * 255 < lightest <= 0.7 * 255


def test_distortion_independent_of_thread_count():
    """Also for images large enough for OpenCV to split them among threads."""
    code = (  # in a new process: workers forked after cv2.setNumThreads might hang
        "import cv2, numpy as np\n"
        "from crnn_ext.ocr.data import augment\n"
        "image = np.random.default_rng(0).integers(0, 256, (120, 3000), np.uint8)\n"
        "for _, distorted in augment._DISTORTIONS:\n"
        "    results = []\n"
        "    for threads in (1, 4):\n"
        "        cv2.setNumThreads(threads)\n"
        "        results.append(distorted(image, 1.0, np.random.default_rng(1)))\n"
        "    assert np.array_equal(*results), distorted\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("strength", "error", "message"),
    [
        (-0.1, ValueError, r"strength must be in \[0, 2\], got -0.1"),
        (2.5, ValueError, r"strength must be in \[0, 2\], got 2.5"),
        (float("nan"), ValueError, r"strength must be in \[0, 2\], got nan"),
        ("1", TypeError, "strength must be a number, got str"),
        (True, TypeError, "strength must be a number, got bool"),
    ],
)
def test_augmentation_rejects_strength(strength, error, message):
    with pytest.raises(error, match=f"^Augmentation: {message}$"):
        Augmentation(strength)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4)), TypeError, "image must be uint8, got float64"),
        (np.zeros((0, 4), np.uint8), ValueError, r"image must be .*, got shape \(0, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"image must be .*, got shape \(4, 4, 4\)"),
        (np.zeros(4, np.uint8), ValueError, r"image must be .*, got shape \(4,\)"),
    ],
)
def test_augmentation_rejects_image(image, error, message):
    with pytest.raises(error, match=f"^Augmentation: {message}$"):
        augmented(image, 0)


def test_augment_import_without_opencv():
    """The package crnn_ext.ocr.data itself does not need OpenCV."""
    code = "import crnn_ext.ocr.data; print('imported'); import crnn_ext.ocr.data.augment"
    result = run_without(["cv2"], code)
    assert result.stdout == "imported\n"
    assert result.stderr.splitlines()[-1] == (
        "ImportError: augmentation needs OpenCV (cv2), which is not installed: "
        "install crnn_ext with its extra [train]"
    )


@pytest.fixture
def source(tmp_path):
    for number in range(8):
        Image.fromarray(line(200 + 30 * number, height=(20, 40, 300)[number % 3])).save(
            write(tmp_path / f"{number}.png", b"")
        )
    write(tmp_path / "labels.txt", "".join(f"{number}.png\tlabel\n" for number in range(8)))
    return open_lines(tmp_path)


def images(dataset, indices=range(8)):
    return [dataset[index].image for index in indices]


def pairwise_equal(ours, theirs):
    return [torch.equal(our, their) for our, their in zip(ours, theirs, strict=True)]


def test_dataset_augmentation_deterministic(source):
    dataset = LineDataset(source, Preprocessing(), Augmentation(), seed=3, epoch=5)
    expected = images(dataset)
    assert all(pairwise_equal(reversed(images(dataset, range(7, -1, -1))), expected))
    assert all(pairwise_equal(images(pickle.loads(pickle.dumps(dataset))), expected))
    dataset.set_epoch(6)
    assert not any(pairwise_equal(images(dataset), expected))
    dataset.set_epoch(5)
    assert all(pairwise_equal(images(dataset), expected))
    other = LineDataset(source, Preprocessing(), Augmentation(), seed=4, epoch=5)
    assert not any(pairwise_equal(images(other), expected))


def test_dataset_augmentation_same_in_workers(source):
    """The workers are forked after OpenCV has started its threads in this process."""
    dataset = LineDataset(source, Preprocessing(channels=3), Augmentation(), seed=3)
    expected = images(dataset)
    for workers in (1, 2):
        loader = DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=collate, timeout=60)
        read = [
            image[..., :width]
            for batch in loader
            for image, width in zip(batch.images, batch.widths.tolist(), strict=True)
        ]
        assert all(pairwise_equal(read, expected))


def test_dataset_shrinks_large_images_before_augmentation(source, monkeypatch):
    seen = []

    def note(_, image, random):
        seen.append(image.shape)
        return image

    monkeypatch.setattr(Augmentation, "__call__", note)
    images(LineDataset(source, Preprocessing(), Augmentation()))
    assert [rows for rows, _ in seen] == [20, 40, 64] * 2 + [20, 40]
    assert seen[2] == (64, 56)  # 260 x 300: rounded up


@given(st.integers(65, 500), st.integers(1, 4000))
def test_limit_rows_keeps_width_in_columns(height, width):
    from crnn_ext.ocr.data.dataset import _limit_rows

    image = Image.new("L", (width, height))
    shrunk = _limit_rows(image, 64)
    assert shrunk.height == 64
    assert 0 <= shrunk.width - width * 64 / height < 1
    assert _limit_rows(shrunk, 64) is shrunk


def test_dataset_without_augmentation(source):
    plain = images(LineDataset(source, Preprocessing()))
    assert all(
        pairwise_equal(images(LineDataset(source, Preprocessing(), Augmentation(0)), range(2)), plain[:2])
    )
    for index, image in enumerate(plain):
        assert torch.equal(image, Preprocessing()(source.image(index, "L")))


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("epoch", -1)])
def test_dataset_rejects_seed_and_epoch(source, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, .*\], got -1"):
        LineDataset(source, Preprocessing(), **{name: value})
