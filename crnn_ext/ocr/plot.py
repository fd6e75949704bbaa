"""Pictures of what a network makes of an image: the posteriors of its classes, column by column."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from crnn_ext.text import Charset

from .images import ImageSource
from .recognizer import Reading, Recognizer

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"crnn_ext.ocr.plot needs {error.name}, which is not installed: "
        "install crnn_ext with its extra [ocr]",
        name=error.name,
    ) from error

# Classes that stay below are left out, so that a large charset stays legible.
_LEAST_POSTERIOR = 0.02


def plot_readings(recognizer: Recognizer, images: Sequence[ImageSource], path: str | Path) -> None:
    """Draws images with what was read in them, as a PNG file.

    For each: the image, in it the characters at the spans of `greedy_decode`; under it the posteriors.

    Args:
        recognizer: reads the images.
        images: one or more.
        path: the file to write.

    Raises:
        ImageError, TypeError, ValueError: as `Recognizer`.
        OSError: the file cannot be written.
    """
    prepared = [recognizer.prepare(image) for image in images]
    readings = recognizer.read(prepared)
    # All images are drawn at one scale, hardly stretched unless the widest is very narrow or very wide.
    widest = max(pixels.shape[-1] for pixels, _ in prepared)
    inches = min(max(1.1 * widest / recognizer.preprocessing.height, 3), 16)
    figure = Figure(figsize=(inches + 2.4, 3 * len(images)), layout="constrained")
    panels = figure.subfigures(len(images), 1, squeeze=False)[:, 0]
    for (pixels, width), reading, panel in zip(prepared, readings, panels, strict=True):
        posteriors = recognizer.logits(pixels.unsqueeze(0))[:, 0].softmax(-1).cpu()
        above, below = panel.subplots(2, 1, sharex=True, height_ratios=[1, 1.1])
        _draw_image(above, pixels, width, reading)
        _draw_posteriors(below, posteriors, width, recognizer.charset)
        below.set_xlim(0, width * widest / pixels.shape[-1])
    figure.savefig(path, format="png", dpi=110)


def _draw_image(axes: Axes, pixels: Tensor, width: int, reading: Reading) -> None:
    """The preprocessed image `(channels, height, W)`, stretched to its width in pixels before."""
    dark, light = pixels.min(), pixels.max()
    shown = ((pixels - dark) / (light - dark).clamp(min=1e-6)).permute(1, 2, 0)
    height = shown.shape[0]
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto", extent=(0, width, height, 0))
    for character, start, end in reading.characters:
        axes.axvspan(start, end, color="tab:orange", alpha=0.3, linewidth=0)
        axes.annotate(
            character, ((start + end) / 2, 0), (0, 2), textcoords="offset points", ha="center", va="bottom"
        )
    axes.set_facecolor("0.9")  # where the image ends
    axes.set_yticks([])
    axes.tick_params(bottom=False)
    axes.set_ylabel(f"P(text | image)\n{reading.confidence:.3f}", rotation=0, ha="right", va="center")


def _draw_posteriors(axes: Axes, posteriors: Tensor, width: int, charset: Charset) -> None:
    """One line a class of `(T, C)`; the frames divide the width evenly among them."""
    frames, classes = posteriors.shape
    columns = (np.arange(frames) + 0.5) * width / frames
    axes.plot(columns, posteriors[:, charset.blank], color="0.6", linestyle="--", label="blank")
    for label in range(classes):
        if label != charset.blank and posteriors[:, label].max() >= _LEAST_POSTERIOR:
            # The same colour in every panel.
            color = f"C{label % 10}"
            axes.plot(columns, posteriors[:, label], color=color, marker=".", label=charset.decode([label]))
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("posterior")
    axes.set_xlabel("column")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False)
