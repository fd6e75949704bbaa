"""plot_readings: the picture shows the image, the posteriors, and each character at its span."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from random_network import random_checkpoint

from crnn_ext.ocr import ImageError, Recognizer
from crnn_ext.ocr.plot import plot_readings


@pytest.fixture(scope="module")
def recognizer():
    checkpoint = random_checkpoint()
    return Recognizer(checkpoint.network, checkpoint.charset, checkpoint.preprocessing)


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (height, width), np.uint8) for width, height in [(64, 32), (150, 48)]]


def test_a_png_file_is_written(recognizer, images, tmp_path):
    plot_readings(recognizer, images, tmp_path / "two.png")
    plot_readings(recognizer, images[:1], str(tmp_path / "one"))
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one") as one:
        assert two.format == one.format == "PNG"
        assert two.height == 2 * one.height
        assert len(np.unique(np.asarray(two.convert("L")))) > 100
    with pytest.raises(ImageError):
        plot_readings(recognizer, [tmp_path / "missing.png"], tmp_path / "none.png")
    with pytest.raises(FileNotFoundError):
        plot_readings(recognizer, images, tmp_path / "missing" / "two.png")


def test_what_is_drawn(recognizer, images, tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: [drawn.append(figure), save(figure, *a, **k)]
    )
    plot_readings(recognizer, images, tmp_path / "two.png")
    [figure] = drawn
    assert len(figure.axes) == 4
    # At 32 rows both images are 64 and 100 columns wide, and both have the room of the wider.
    for image, in_view, above, below in zip(
        images, [100, 150], figure.axes[::2], figure.axes[1::2], strict=True
    ):
        width = image.shape[1]
        [reading] = recognizer([image])
        assert len(reading.characters) > 2
        assert [text.get_text() for text in above.texts] == list(reading.text)
        assert [(span.get_x(), span.get_x() + span.get_width()) for span in above.patches] == [
            (start, end) for _, start, end in reading.characters
        ]
        assert above.get_xlim() == below.get_xlim() == (0, in_view)
        [shown] = above.images
        assert shown.get_extent()[:2] == [0, width]

        lines = {line.get_label(): line for line in below.lines}
        assert set(lines) == {"blank", "a", "b", "c"}
        logits = recognizer.logits(recognizer.prepare(image).pixels[None])[:, 0]
        for label, name in enumerate(["blank", "a", "b", "c"]):
            np.testing.assert_allclose(lines[name].get_ydata(), logits.softmax(-1)[:, label], rtol=1e-5)
            frames = len(logits)
            np.testing.assert_allclose(lines[name].get_xdata(), (np.arange(frames) + 0.5) * width / frames)
