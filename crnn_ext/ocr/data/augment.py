"""Augmentation of text lines: label-preserving distortions that imitate printing, scanning and cropping.

Requires the optional dependencies of `crnn_ext[train]`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from crnn_ext._arguments import check_number

try:
    import cv2
except ImportError as error:
    raise ImportError(
        f"augmentation needs OpenCV ({error.name}), which is not installed: "
        "install crnn_ext with its extra [train]",
        name=error.name,
    ) from error

Pixels = npt.NDArray[np.uint8]

# cv2.remap is limited to sides below 2^15 pixels, and distortions widen lines.
_MAX_SIDE = 24_000

# Maximum relative narrowing (and widening) of a line at strength 1.
_NARROWING = 0.1

# Equally probable Gaussian deviates, indexed by a random byte.
_DEVIATES = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)], np.float32)


@dataclass(frozen=True)
class Augmentation:
    """Random distortions of text lines that imitate printing, scanning and cropping.

    `docs/how-to/prepare-data.md` describes them.

    Equal states of the random generator give equal distortions. New background around a line has the median
    color of the image border. Distortions never crop the ends of a line, and crop at most a few percent of
    its height at the top and the bottom.

    Args:
        strength: the strength of the distortions in [0, 2]; 0 leaves images unchanged, 1 suits printed lines.

    Raises:
        TypeError, ValueError: the strength is invalid.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        check_number(f"{type(self).__name__}: strength", self.strength, 0, 2)

    def __call__(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """Returns the distorted line, usually with a different size.

        An image with more than 24,000 rows or columns is returned unchanged.

        Args:
            image: uint8, `(H, W)` or `(H, W, 3)`; it is not modified.
            random: the random generator.

        Raises:
            TypeError, ValueError: the image has another dtype or shape.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"Augmentation: image must be uint8, got {image.dtype}")
        if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(
                "Augmentation: image must be (H, W) or (H, W, 3) with at least one pixel, got shape "
                f"{image.shape}"
            )
        if self.strength == 0 or max(image.shape) > _MAX_SIDE:
            return image
        for probability, distort in _DISTORTIONS:
            if random.random() < probability:
                image = distort(image, self.strength, random)
        return image


def _uneven_ink(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Fades the ink into the paper by a smoothly varying amount."""
    faded = _field(image, min(0.45 * strength, 0.7), random)
    return _to_pixels(image + faded * (_paper(image) - image.astype(np.float32)))


def _stroke_width(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Thins or thickens strokes by up to a pixel on each side, in proportion to the height."""
    changed = (cv2.erode if random.random() < 0.5 else cv2.dilate)(image, _CROSS)
    share = min(random.uniform(0, 0.018 * strength) * image.shape[0], 1)
    return np.asarray(cv2.addWeighted(image, 1 - share, changed, share, 0), np.uint8)


def _blots(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Adds specks of ink and of paper that are smaller than any letter."""
    height, width = image.shape[:2]
    paper = _paper(image)
    ink = np.where(paper > 127, image.min((0, 1)), image.max((0, 1)))
    image = image.copy()
    for _ in range(1 + random.poisson(0.15 * strength * width / height)):
        color = (ink if random.random() < 0.5 else paper).tolist()
        x, y, across, down = (random.random(4) * 16 * (width, height, 0.05 * height, 0.05 * height)).tolist()
        angle = random.uniform(0, 180)
        center, axes = (round(x), round(y)), (round(across), round(down))
        cv2.ellipse(image, center, axes, angle, 0, 360, color, cv2.FILLED, cv2.LINE_AA, shift=4)
    return image


def _uneven_paper(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Darkens the page with smooth stains and shadows."""
    return _to_pixels(image * (1 - _field(image, 0.2 * strength, random)))


def _warp(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Slants, rotates, stretches, pads and smoothly displaces the line in one interpolation.

    A pixel (x, y) of the result comes from

        source_x = (x - left - slant * (y - height / 2)) / stretch + displacement_x
        source_y = y * shrinking - top - slope * (source_x - width / 2) + displacement_y

    The result has the same number of rows, and enough columns for the whole line.
    """
    height, width = image.shape[:2]
    stretch = 1 + random.uniform(-_NARROWING, _NARROWING) * strength
    slant = random.uniform(-0.14, 0.14) * strength
    slope = random.uniform(-1, 1) * strength * min(0.025, 0.08 * height / width)
    above, below = random.uniform(-0.03, 0.08, 2) * strength * height
    before, after = random.uniform(0, 0.08, 2) * strength * height
    # The grid has 3 nodes over the height; horizontally, nodes are about one line height apart.
    nodes = random.uniform(-1, 1, (2, 3, round(width / height) + 2)).astype(np.float32)
    nodes *= random.uniform(0, 0.05) * strength * height
    nodes[1] /= 2

    top = above + abs(slope) * width / 2
    shrinking = (top + height + below + abs(slope) * width / 2) / height
    left = before + abs(slant) * height / 2 + stretch * max(nodes[0].max(), 0)
    right = after + abs(slant) * height / 2 - stretch * min(nodes[0].min(), 0)
    columns = math.ceil(left + stretch * width + right)

    y = np.arange(height, dtype=np.float32)[:, None]
    across = (np.arange(columns, dtype=np.float32) - np.float32(left)) / np.float32(stretch)
    source_x, source_y = (np.asarray(cv2.resize(part, (columns, height))) for part in nodes)
    source_x += across
    source_x -= (y - height / 2) * np.float32(slant / stretch)
    source_y += y * np.float32(shrinking) - np.float32(top)
    source_y -= (across - width / 2) * np.float32(slope)
    paper = _paper(image).tolist()
    return np.asarray(cv2.remap(image, source_x, source_y, cv2.INTER_LINEAR, borderValue=paper), np.uint8)


def _blur(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Blurs the image, as if out of focus or moved during scanning."""
    across, down = random.uniform(0.1, 0.1 + 0.018 * strength * image.shape[0], 2).tolist()
    return np.asarray(cv2.GaussianBlur(image, (0, 0), across, sigmaY=down), np.uint8)


def _tone(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Changes gamma, contrast and brightness, relative to the image's range from dark to light."""
    gamma, contrast = np.exp(random.uniform(-0.4, 0.4, 2) * strength)
    brightness = random.uniform(-0.1, 0.1) * strength
    low, span = float(image.min()), max(float(image.max()) - float(image.min()), 1)
    values = ((np.arange(256) - low) / span).clip(0, 1) ** gamma
    values = (values - 0.5) * contrast + 0.5 + brightness
    return np.asarray(cv2.LUT(image, _to_pixels(low + span * values)), np.uint8)


def _noise(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Adds Gaussian noise in proportion to the image's range from dark to light."""
    deviation = random.uniform(0, 0.08 * strength) * float(image.max() - image.min())
    return _to_pixels(image + _gaussian(image.shape, deviation, random))


def _speckle(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Adds noise proportional to brightness and to the range, with a grain of two pixels."""
    height, width = image.shape[:2]
    deviation = random.uniform(0, 0.15 * strength) * float(image.max() - image.min()) / 255
    grains = _gaussian((-(-height // 2), -(-width // 2)), deviation, random)
    return _to_pixels(image * (1 + _resize_to(grains, image)))


def _jpeg(image: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Adds the artifacts of JPEG compression."""
    quality = round(90 - random.uniform(0, 40) * strength)
    _, file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_UNCHANGED), np.uint8)


_Distortion = Callable[[Pixels, float, np.random.Generator], Pixels]

# The probability and function of each distortion, in the order of their application.
_DISTORTIONS: tuple[tuple[float, _Distortion], ...] = (
    (0.2, _uneven_ink),
    (0.3, _stroke_width),
    (0.2, _blots),
    (0.25, _uneven_paper),
    (0.8, _warp),
    (0.3, _blur),
    (0.5, _tone),
    (0.3, _noise),
    (0.15, _speckle),
    (0.1, _jpeg),
)

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def _paper(image: Pixels) -> Pixels:
    """The median color of the border, `()` or `(3,)`."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.asarray(np.partition(border, len(border) // 2, axis=0)[len(border) // 2])


def _field(image: Pixels, maximum: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """A smooth random field over the image, with values from 0 to `maximum`."""
    height, width = image.shape[:2]
    nodes = random.random((2, round(width / height / 2) + 2), np.float32)
    return _resize_to(nodes * np.float32(random.uniform(0, maximum)), image)


def _resize_to(nodes: npt.NDArray[np.float32], image: Pixels) -> npt.NDArray[np.float32]:
    """Interpolates the nodes to the size of the image, broadcastable over its channels."""
    height, width = image.shape[:2]
    field = np.asarray(cv2.resize(nodes, (width, height)), np.float32)
    return field if image.ndim == 2 else field[..., None]


def _gaussian(
    shape: tuple[int, ...], deviation: float, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Gaussian noise with this standard deviation."""
    indices = np.frombuffer(random.bytes(math.prod(shape)), np.uint8).reshape(shape)
    return np.asarray(np.take(np.float32(deviation) * _DEVIATES, indices))


def _to_pixels(values: npt.NDArray[np.floating]) -> Pixels:
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)
