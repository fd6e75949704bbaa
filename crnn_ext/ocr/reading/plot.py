"""Pictures of what a network makes of an image: the posteriors of its classes, and the text's alignment."""

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

# By the suffix of the file.
PLOT_FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg"}
# More would be higher than matplotlib draws.
MAX_IMAGES = 100
# Classes that stay below are left out, so that a large charset stays legible.
_LEAST_POSTERIOR = 0.02
# A longer legend is higher than its panel.
_LEGEND_ROWS = 12
_LETTERS_AN_INCH = 12


@dataclass(frozen=True)
class _Aligned:
    """A text and where an image has it.

    `labels` `(S,)` are those of its characters; `posteriors` are `(T, C)`; `confidence` is P(text | image).
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
    """Draws images with what was read in them, as a PNG, PDF or SVG file, as the suffix of the path says.

    For each: the image; under it the characters of the text at the frames of its most probable path, as high
    as `token_logp` of `align` has it; under these the posteriors. A character that the font lacks is drawn as
    a box.

    Args:
        recognizer: reads the images.
        images: 1 to 100.
        path: the file to write. One of the same name is replaced when the new one is complete.
        titles: what stands above each image.
        text: is aligned with each image in place of what was read.

    Returns:
        Whether there is a text for each image. Otherwise a search has found none that the lexicon allows.

    Raises:
        ImageError, TypeError, ValueError: as `Recognizer`; or the path has another suffix, there are too many
            images or none, or the text has characters outside the charset or too many for an image.
        OSError: the file cannot be written.
    """
    file_format = plot_format(path)
    if not 1 <= len(images) <= MAX_IMAGES:
        raise ValueError(f"images must be 1 to {MAX_IMAGES} for one picture, and they are {len(images)}")
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
    # All images are drawn at one scale, hardly stretched unless the widest is very narrow or very wide.
    widest = max(pixels.shape[-1] for pixels, _ in prepared)
    inches = min(max(1.1 * widest / recognizer.preprocessing.height, 4), 20)
    figure = Figure(figsize=(inches + 2.4, 3.8 * len(images)), layout="constrained")
    panels = figure.subfigures(len(images), 1, squeeze=False)[:, 0]
    for index, (image, found, panel) in enumerate(zip(prepared, aligned, panels, strict=True)):
        above, middle, below = panel.subplots(3, 1, sharex=True, height_ratios=[1, 0.8, 1.2])
        _draw_image(above, image)
        title = [] if titles is None else [_shortened(printable(titles[index]), inches)]
        read = _shortened(printable("".join(character.character for character in found.characters)), inches)
        told = f"{read or 'no text'}   P = {found.confidence:.3g}" if has_text[index] else "no text found"
        above.set_title(
            "\n".join([*title, told]),
            loc="left",
            fontsize="medium",
            parse_math=False,
        )
        _draw_alignment(middle, found)
        _draw_posteriors(below, found.posteriors, image.width, recognizer.charset)
        below.set_xlim(0, image.width * widest / image.pixels.shape[-1])
    content = io.BytesIO()
    with warnings.catch_warnings():
        # One for each character and size of it that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(content, format=file_format, dpi=110)
    atomic_write_bytes(path, content.getvalue())
    return has_text


def plot_format(path: str | Path) -> str:
    """The format that the suffix of a picture's path names.

    Raises:
        ValueError: it names none.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PLOT_FORMATS:
        raise ValueError(
            f"{path}: the suffix of a picture must be {', '.join(PLOT_FORMATS)}, and it is {suffix!r}"
        )
    return PLOT_FORMATS[suffix]


def _aligned(recognizer: Recognizer, image: PreprocessedImage, text: str, encoded: Sequence[str]) -> _Aligned:
    """The text in an image; `encoded` is it or its parts, as what was read need not be in NFC as a whole."""
    charset = recognizer.charset
    logits = recognizer.logits(image.pixels.unsqueeze(0))[:, 0]
    frames = len(logits)
    targets, _ = charset.encode(encoded, padded=False)
    if frames_needed(text) > frames:
        raise ValueError(
            f"text must need no more frames than the image has, which are {frames}, and {text!r:.60} "
            f"needs {frames_needed(text)}"
        )
    found = align(logits, targets, frames, len(targets), blank=charset.blank)
    log_prob = log_probability(
        *(logits.unsqueeze(1), targets.view(1, 1, -1), [frames], [[len(targets)]]), blank=charset.blank
    )
    return _Aligned(
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
    """The preprocessed image `(channels, height, W)`, stretched to its width in pixels before."""
    dark, light = image.pixels.min(), image.pixels.max()
    shown = ((image.pixels - dark) / (light - dark).clamp(min=1e-6)).permute(1, 2, 0)
    extent = (0, image.width, shown.shape[0], 0)
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extent)
    axes.set_facecolor("0.9")  # where the image ends
    axes.set_yticks([])
    axes.tick_params(bottom=False)


def _draw_alignment(axes: Axes, aligned: _Aligned) -> None:
    """A bar at the frames of each character, as high as its probability there, and the character under it."""
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
    """One line a class of `(T, C)`; the frames divide the width evenly among them."""
    frames, classes = posteriors.shape
    columns = (np.arange(frames) + 0.5) * width / frames
    axes.plot(columns, posteriors[:, charset.blank], color="0.6", linestyle="--", label="blank")
    for label in range(classes):
        if label != charset.blank and posteriors[:, label].max() >= _LEAST_POSTERIOR:
            name = _name(charset.decode([label]))
            axes.plot(columns, posteriors[:, label], color=_color(label), marker=".", label=name)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("posterior")
    axes.set_xlabel("column")
    legend = axes.legend(
        axes.lines,
        # Put in below, as some versions of matplotlib leave out a name that begins with "_".
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
    """The same in every panel."""
    return f"C{label % 10}"


def _name(character: str) -> str:
    return "\N{OPEN BOX}" if character == " " else printable(character)


def _shortened(text: str, inches: float) -> str:
    """The end of a text that is too long to stand above an image, for paths differ there."""
    letters = int(inches * _LETTERS_AN_INCH)
    return text if len(text) <= letters else f"\N{HORIZONTAL ELLIPSIS}{text[1 - letters :]}"
