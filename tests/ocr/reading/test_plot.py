"""plot_readings and `crnn-ext plot`: image, posteriors, and each character at its frames."""

import math
import warnings

import numpy as np
import pytest
import torch
from helpers.random_checkpoint import random_checkpoint
from matplotlib.figure import Figure
from PIL import Image

from crnn_ext.cli import main
from crnn_ext.ctc import align
from crnn_ext.ocr import Architecture, DecodedText, ImageError, Preprocessing, Recognizer, save_checkpoint
from crnn_ext.ocr.reading.plot import plot_readings
from crnn_ext.text import Charset


@pytest.fixture(scope="module")
def recognizer():
    checkpoint = random_checkpoint()
    return Recognizer(checkpoint.network, checkpoint.charset, checkpoint.preprocessing)


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (height, width), np.uint8) for width, height in [(64, 32), (150, 48)]]


@pytest.fixture
def figures(monkeypatch):
    """Collects the figures that a test saves."""
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: [drawn.append(figure), save(figure, *a, **k)]
    )
    return drawn


def test_plot_writes_png(recognizer, images, tmp_path):
    plot_readings(recognizer, images, tmp_path / "two.png")
    plot_readings(recognizer, images[:1], str(tmp_path / "one.PNG"))
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.PNG") as one:
        assert two.format == one.format == "PNG"
        assert two.height == 2 * one.height
        assert len(np.unique(np.asarray(two.convert("L")))) > 100
    with pytest.raises(ImageError):
        plot_readings(recognizer, [tmp_path / "missing.png"], tmp_path / "none.png")
    with pytest.raises(FileNotFoundError):
        plot_readings(recognizer, images, tmp_path / "missing" / "two.png")


def test_plot_suffix(recognizer, images, tmp_path):
    for name, start in [("one.pdf", b"%PDF"), ("one.svg", b"<?xml")]:
        plot_readings(recognizer, images[:1], tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    for name in ("one.jpg", "one"):
        with pytest.raises(ValueError, match=rf"{name}: the suffix of a plot must be .png, .pdf, .svg"):
            plot_readings(recognizer, images, tmp_path / name)


def test_plot_content(recognizer, images, tmp_path, figures):
    plot_readings(recognizer, images, tmp_path / "two.png", titles=["first", "a/b\n"])
    [figure] = figures
    assert len(figure.axes) == 6
    # At 32 rows the images are 64 and 100 columns wide; both axes span the wider one.
    for image, title, in_view, above, middle, below in zip(
        images, ["first", "a/b\\n"], [100, 150], *(figure.axes[row::3] for row in range(3)), strict=True
    ):
        width = image.shape[1]
        [reading] = recognizer([image])
        assert len(reading.text) > 2
        assert above.get_title("left") == f"{title}\n{reading.text}   P = {reading.confidence:.3g}"
        assert above.get_xlim() == middle.get_xlim() == below.get_xlim() == (0, in_view)
        [shown] = above.images
        assert shown.get_extent()[:2] == [0, width]

        logits = recognizer.logits(recognizer.preprocess(image).pixels[None])[:, 0]
        frames = len(logits)
        targets, length = recognizer.charset.encode(reading.text)
        found = align(logits, targets, frames, length)
        assert [text.get_text() for text in middle.texts] == list(reading.text)
        bars = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in middle.patches]
        assert bars == [
            (start * width // frames, -(-end * width // frames), pytest.approx(math.exp(log_prob)))
            for start, end, log_prob in zip(
                *(part.tolist() for part in found[2:4]), found.token_logp, strict=True
            )
        ]
        centers = [text.get_position()[0] for text in middle.texts]
        assert centers == [(start + end) / 2 for start, end, _ in bars]

        lines = {line.get_label(): line for line in below.lines}
        assert (
            set(lines) == {text.get_text() for text in below.get_legend().texts} == {"blank", "a", "b", "c"}
        )
        for label, name in enumerate(["blank", "a", "b", "c"]):
            np.testing.assert_allclose(lines[name].get_ydata(), logits.softmax(-1)[:, label], rtol=1e-5)
            np.testing.assert_allclose(lines[name].get_xdata(), (np.arange(frames) + 0.5) * width / frames)


def test_plot_given_text(recognizer, images, tmp_path, figures):
    plot_readings(recognizer, images[:1], tmp_path / "one.png", text="cab")
    assert [text.get_text() for text in figures[0].axes[1].texts] == ["c", "a", "b"]
    plot_readings(recognizer, images[:1], tmp_path / "none.png", text="")
    assert list(figures[1].axes[1].texts) == []
    with pytest.raises(ValueError, match=r"got 'x' \(U\+0078\) at position 2 of texts\[0\], 'cax'"):
        plot_readings(recognizer, images[:1], tmp_path / "x.png", text="cax")
    message = "text must fit into the 17 frames of the image, got 'aaaaaaaaaa', which needs 19"
    with pytest.raises(ValueError, match=message):
        plot_readings(recognizer, images[:1], tmp_path / "x.png", text="a" * 10)
    assert not (tmp_path / "x.png").exists()


def test_plot_special_characters(images, tmp_path, figures):
    """Formulas, labels of hidden lines, characters missing in the font, combining marks."""
    odd = "$_ \\अ漢u\u0308\n"
    network, charset = random_network(odd)
    # The text uses all characters, so the legend needs more entries than fit in one column.
    recognizer = Recognizer(
        network,
        charset,
        Preprocessing(),
        lambda logits, lengths, charset: [
            [DecodedText(odd + "$$", 0.5, [0] * 11, [1] * 11, [0.5] * 11)] for _ in lengths
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in ("png", "pdf", "svg"):
            plot_readings(recognizer, images[:1], tmp_path / f"odd.{suffix}", titles=["$\\frac{_$"])
    names = ["$", "_", "\u2423", "\\", "अ", "漢", "u", "\u0308", "\\n"]
    below = figures[0].axes[2]
    assert [text.get_text() for text in below.get_legend().texts] == ["blank", *names]
    assert [text.get_text() for text in figures[0].axes[1].texts] == [*names, "$", "$"]


def random_network(characters):
    """Return a network that gives each class a posterior of at least 0.02."""
    charset = Charset(characters)
    torch.manual_seed(0)
    return Architecture("CRNN", charset.num_classes, nh=4, width=0.05).build(), charset


def test_plot_rejects_image_count(recognizer, images, tmp_path):
    for some in ([], images * 51):
        message = rf"the number of images must be in \[1, 100\], got {len(some)}"
        with pytest.raises(ValueError, match=message):
            plot_readings(recognizer, some, tmp_path / "many.png")


def test_plot_truncates_long_title(recognizer, images, tmp_path, figures):
    plot_readings(recognizer, images[:1], tmp_path / "one.png", titles=["folder/" * 99 + "name.png"])
    title = figures[0].axes[0].get_title("left").split("\n")[0]
    assert title.startswith("\u2026")
    assert title.endswith("folder/name.png")
    assert len(title) == 48


@pytest.fixture(scope="module")
def files(recognizer, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot")
    save_checkpoint(folder / "model", random_checkpoint())
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def test_plot_command(files, tmp_path, figures, capsys):
    out = tmp_path / "out.png"
    assert main(["plot", f"{files}/model", str(files), "-o", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    titles = [axes.get_title("left").split("\n")[0] for axes in figures[0].axes[::3]]
    assert [title[-6:] for title in titles] == ["/0.png", "/1.png"]

    (tmp_path / "text.png").write_text("text")
    arguments = ["plot", f"{files}/model", f"{files}/0.png"]
    assert main([*arguments, str(tmp_path / "text.png"), "-o", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"crnn-ext: {tmp_path}/text.png: not an image")
    Image.new("L", (60_000, 3)).save(tmp_path / "wide.png")
    assert main([*arguments, str(tmp_path / "wide.png"), "-o", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"crnn-ext: {tmp_path}/wide.png: 60000 x 3 pixels, scaled to")
    assert main([*arguments, "--text", "abc", "--device", "cpu", "-o", str(out)]) == 0
    assert [text.get_text() for text in figures[-1].axes[1].texts] == ["a", "b", "c"]
    assert (
        main([*arguments, "--beam", "4", "--hotword", "abc", "--hotword-weight", "99", "-o", str(out)]) == 0
    )
    assert "abc" in figures[-1].axes[0].get_title("left")


def test_plot_command_no_text_found(files, tmp_path, figures, capsys):
    """The only word of the lexicon has more characters than the image has frames."""
    (tmp_path / "words").write_text("abc" * 30)
    options = ["--beam", "1", "--lexicon", str(tmp_path / "words"), "-o", str(tmp_path / "out.png")]
    assert main(["plot", f"{files}/model", f"{files}/0.png", *options]) == 1
    assert capsys.readouterr().err.startswith(f"crnn-ext: {files}/0.png: the search found no text")
    assert figures[-1].axes[0].get_title("left").endswith("\nno text found")


def test_plot_command_errors(files, tmp_path, capsys):
    for arguments, message in [
        (
            ["0.png", "-o", "out.jpg"],
            "out.jpg: the suffix of a plot must be .png, .pdf, .svg, got '.jpg'",
        ),
        (["0.png", "-o", "missing/out.png"], "missing/out.png: the folder does not exist"),
        (["0.png", "-o", "0.png"], "0.png: -o must not name an input file"),
        (["0.png", "1.png", "--text", "a", "-o", "out.png"], "--text needs one image, got 2"),
        (["0.png"] * 101 + ["-o", "out.png"], "images must be at most 100, got 101"),
        (["0.png", "--text", "a" * 10, "-o", "out.png"], "text must fit into the 17 frames"),
        (["gone.png", "-o", "out.png"], "gone.png: No such file or directory"),
        (["0.png", "--device", "gpu", "-o", "out.png"], "--device must be cpu"),
    ]:
        paths = [f"{files}/{part}" if part.endswith(("g", ".jpg")) else part for part in arguments]
        assert main(["plot", f"{files}/model", *paths]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert message in errors
        assert not (files / "out.png").exists()
