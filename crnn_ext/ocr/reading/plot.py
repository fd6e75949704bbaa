"""Plots of images with the alignment of the text and the posteriors of the classes."""

import io
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crnn_ext._formatting import printable
from crnn_ext.ctc import align, log_probability
from crnn_ext.ocr.data.check import frames_needed
from crnn_ext.ocr.images import ImageSource
from crnn_ext.ocr.system.atomic_write import atomic_write_bytes
from crnn_ext.text import Charset

from .recognizer import Character, PreprocessedImage, Recognizer, character_spans

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"crnn_ext.ocr.reading.plot needs {error.name}, which is not installed: "
        "install crnn_ext with its extra [ocr]",
        name=error.name,
    ) from error

# By file suffix.
PLOT_FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg"}
# A figure with more images would exceed the maximum height of matplotlib.
MAX_IMAGES = 100
# Classes whose posterior stays below are not drawn, which keeps plots of large charsets legible.
_MIN_POSTERIOR = 0.02
# A column with more rows would be higher than its panel.
_LEGEND_ROWS = 12
_CHARS_PER_INCH = 12


@dataclass(frozen=True)
class _AlignedText:
    """A text and its alignment with an image.

    `labels` `(S,)` are the labels of the characters, `posteriors` are `(T, C)`, and `confidence` is
    P(text | image).
    """

    characters: list[Character]
    labels: list[int]
    posteriors: npt.NDArray[np.float32]
    confidence: float


def plot_readings(
    recognizer: Recognizer,
    images: Sequence[ImageSource],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    text: str | None = None,
) -> list[bool]:
    """Plots images and their texts to a PNG, PDF or SVG file, chosen by the suffix of the path.

    Each image has three panels: the preprocessed image; the characters of the text at the frames of its most
    probable path, with bars as high as their probability, `token_logp` of `align`; and the posteriors. A
    character that is missing in the font is drawn as a box.

    Args:
        recognizer: reads the images.
        images: 1 to 100 images.
        path: the file, written atomically.
        titles: the title of each image.
        text: the text to align with every image; None aligns the text that the recognizer reads.

    Returns:
        For each image, whether it has a text; False if a search found no text that the lexicon allows.

    Raises:
        ImageError, TypeError, ValueError: as `Recognizer`; or the path has another suffix, the number of
            images is out of range, or the text has characters outside the charset or needs too many frames.
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    file_format = plot_format(path)
    if not 1 <= len(images) <= MAX_IMAGES:
        raise ValueError(f"the number of images must be in [1, {MAX_IMAGES}], got {len(images)}")
    prepared = [recognizer.preprocess(image) for image in images]
    if text is None:
        readings = recognizer.read(prepared)
        has_text = [reading.found for reading in readings]
        aligned = [
            _aligned(recognizer, image, reading.text, list(reading.text))
            for image, reading in zip(prepared, readings, strict=True)
        ]
    else:
        composed = unicodedata.normalize("NFC", text)
        has_text = [True] * len(images)
        aligned = [_aligned(recognizer, image, composed, [composed]) for image in prepared]
    # All images have the same scale, with little distortion unless the widest is very narrow or very wide.
    widest = max(pixels.shape[-1] for pixels, _ in prepared)
    inches = min(max(1.1 * widest / recognizer.preprocessing.height, 4), 20)
    figure = Figure(figsize=(inches + 2.4, 3.8 * len(images)), layout="constrained")
    panels = figure.subfigures(len(images), 1, squeeze=False)[:, 0]
    for index, (image, found, panel) in enumerate(zip(prepared, aligned, panels, strict=True)):
        above, middle, below = panel.subplots(3, 1, sharex=True, height_ratios=[1, 0.8, 1.2])
        _draw_image(above, image)
        title = [] if titles is None else [_shortened(printable(titles[index]), inches)]
        read = _shortened(printable("".join(character.character for character in found.characters)), inches)
        caption = f"{read or 'no text'}   P = {found.confidence:.3g}" if has_text[index] else "no text found"
        above.set_title(
            "\n".join([*title, caption]),
            loc="left",
            fontsize="medium",
            parse_math=False,
        )
        _draw_alignment(middle, found)
        _draw_posteriors(below, found.posteriors, image.width, recognizer.charset)
        below.set_xlim(0, image.width * widest / image.pixels.shape[-1])
    content = io.BytesIO()
    with warnings.catch_warnings():
        # One warning for each missing character and font size.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(content, format=file_format, dpi=110)
    atomic_write_bytes(path, content.getvalue())
    return has_text


def plot_format(path: str | Path) -> str:
    """The file format for the suffix of a path.

    Raises:
        ValueError: the suffix is not supported.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PLOT_FORMATS:
        raise ValueError(f"{path}: the suffix of a plot must be {', '.join(PLOT_FORMATS)}, got {suffix!r}")
    return PLOT_FORMATS[suffix]


def _aligned(
    recognizer: Recognizer, image: PreprocessedImage, text: str, encoded: Sequence[str]
) -> _AlignedText:
    """Aligns a text with an image.

    `encoded` is the text, or its characters: a text that was read need not be in NFC as a whole.
    """
    charset = recognizer.charset
    logits = recognizer.logits(image.pixels.unsqueeze(0))[:, 0]
    frames = len(logits)
    targets, _ = charset.encode(encoded, padded=False)
    if frames_needed(text) > frames:
        raise ValueError(
            f"text must fit into the {frames} frames of the image, got {text!r:.60}, which needs "
            f"{frames_needed(text)}"
        )
    found = align(logits, targets, frames, len(targets), blank=charset.blank)
    log_prob = log_probability(
        *(logits.unsqueeze(1), targets.view(1, 1, -1), [frames], [[len(targets)]]), blank=charset.blank
    )
    return _AlignedText(
        character_spans(
            text,
            found.starts.tolist(),
            found.ends.tolist(),
            found.token_logp.exp().clamp(max=1).tolist(),
            frames,
            image.width,
        ),
        targets.tolist(),
        logits.softmax(-1).cpu().numpy(),
        min(log_prob.exp().item(), 1.0),
    )


def _draw_image(axes: Axes, image: PreprocessedImage) -> None:
    """Draws the preprocessed image `(channels, height, W)`, stretched to the width of the original."""
    dark, light = image.pixels.min(), image.pixels.max()
    shown = ((image.pixels - dark) / (light - dark).clamp(min=1e-6)).permute(1, 2, 0)
    extent = (0, image.width, shown.shape[0], 0)
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extent)
    axes.set_facecolor("0.9")  # background beyond the end of the image
    axes.set_yticks([])
    axes.tick_params(bottom=False)


def _draw_alignment(axes: Axes, aligned: _AlignedText) -> None:
    """Draws a bar over the frames of each character, as high as its probability, and the character below."""
    for (character, start, end, confidence), label in zip(aligned.characters, aligned.labels, strict=True):
        axes.bar(start, confidence, end - start, align="edge", color=_color(label))
        axes.text(
            (start + end) / 2,
            -0.1,
            _name(character),
            color=_color(label),
            ha="center",
            va="top",
        )
    axes.set_ylim(-0.7, 1.02)
    axes.set_yticks([0, 1])
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.tick_params(bottom=False)
    axes.set_ylabel("alignment")


def _draw_posteriors(axes: Axes, posteriors: npt.NDArray[np.float32], width: int, charset: Charset) -> None:
    """Draws one line for each class of `(T, C)`; all frames cover the same number of columns."""
    frames, classes = posteriors.shape
    columns = (np.arange(frames) + 0.5) * width / frames
    axes.plot(columns, posteriors[:, charset.blank], color="0.6", linestyle="--", label="blank")
    for label in range(classes):
        if label != charset.blank and posteriors[:, label].max() >= _MIN_POSTERIOR:
            name = _name(charset.decode([label]))
            axes.plot(columns, posteriors[:, label], color=_color(label), marker=".", label=name)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("posterior")
    axes.set_xlabel("column")
    legend = axes.legend(
        axes.lines,
        # Set below: some versions of matplotlib omit labels that begin with "_".
        ["" for _ in axes.lines],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize="small",
        frameon=False,
        ncols=-(-len(axes.lines) // _LEGEND_ROWS),
    )
    for entry, line in zip(legend.get_texts(), axes.lines, strict=True):
        entry.set_text(line.get_label())


def _color(label: int) -> str:
    """The color of a class, equal in all panels."""
    return f"C{label % 10}"


def _name(character: str) -> str:
    return "\N{OPEN BOX}" if character == " " else printable(character)


def _shortened(text: str, inches: float) -> str:
    """A text that fits above an image; a longer one keeps its end, in which paths differ."""
    length = int(inches * _CHARS_PER_INCH)
    return text if len(text) <= length else f"\N{HORIZONTAL ELLIPSIS}{text[1 - length :]}"
