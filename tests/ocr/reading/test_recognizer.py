"""Recognizer: texts, confidences and spans of images of mixed sizes."""

import gc
import io
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fuzz import slow_examples
from helpers.random_checkpoint import random_checkpoint
from helpers.stripe_reader import CHARSET, GrayLevelNetwork, recognizer, stripes
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import crnn_ext
from crnn_ext.ocr import (
    Architecture,
    BeamSearch,
    CheckpointError,
    ImageError,
    Preprocessing,
    Recognizer,
    greedy,
    save_checkpoint,
)
from crnn_ext.ocr.images.preprocessing import MAX_COLUMNS
from crnn_ext.ocr.reading.recognizer import LOOKAHEAD, MAX_BATCH_SIZE, PreprocessedImage
from crnn_ext.text import Charset


def spans(reading):
    return [(character.character, character.start, character.end) for character in reading.characters]


def confidences(reading):
    return [reading.confidence, *(character.confidence for character in reading.characters)]


def test_recognizer_text_confidence_and_spans():
    [reading] = recognizer()([stripes("-aa-ab-ccc--")])
    assert reading.text == "aabc"
    assert spans(reading) == [("a", 4, 12), ("a", 16, 20), ("b", 20, 24), ("c", 28, 40)]
    assert 0.99 < reading.confidence <= 1


def test_spans_in_original_columns():
    for frame, height in [(8, 64), (2, 16)]:
        [reading] = recognizer()([stripes("--cc-a", frame, height)])
        assert spans(reading) == [("c", 2 * frame, 4 * frame), ("a", 5 * frame, 6 * frame)]
    # 6 frames of an image 3 columns wide, then 2 frames of one 11 wide: spans are rounded outwards.
    [reading] = recognizer()([Image.new("L", (3, 4), 0)])
    assert spans(reading) == [("c", 0, 3)]
    [reading] = recognizer()([np.pad(stripes("ac"), ((0, 0), (0, 3)))])
    assert spans(reading) == [("a", 0, 6), ("c", 5, 11)]


def test_spans_fixed_width():
    reader = Recognizer(GrayLevelNetwork(), CHARSET, Preprocessing(width=48))
    readings = reader([stripes("-aa-b-", frame) for frame in (2, 4, 30)])
    assert reader.network.batches == [(3, 1, 32, 48)]
    for frame, reading in zip((2, 4, 30), readings, strict=True):
        assert reading.text == "ab"
        for character, columns in zip(reading.characters, [(1, 3), (4, 5)], strict=True):
            # The tolerance is half a frame; each image has 12 frames.
            assert (character.start, character.end) == pytest.approx(
                [column * frame for column in columns], abs=frame / 2
            )


def test_confidence_equals_text_probability():
    # At margin 1 many alignments contribute; the reference is torch's loss.
    image = stripes("-ab--a")
    reader = recognizer(margin=1.0)
    [reading] = reader([image])
    assert reading.text == "aba"
    log_probs = reader.network(Preprocessing()(image)[None]).log_softmax(-1)
    loss = nn.functional.ctc_loss(log_probs, torch.tensor([[1, 2, 1]]), [6], [3], reduction="none")
    assert reading.confidence == pytest.approx(loss.neg().exp().item(), rel=1e-5)
    assert reading.confidence < 0.5


@pytest.mark.parametrize("decoding", [greedy, BeamSearch(CHARSET, beam_size=4)])
def test_character_confidence_is_mean_over_frames(decoding):
    reader = recognizer(margin=4.0)
    reader.decoding = decoding
    image = np.tile(np.repeat(np.uint8([255, 170, 140, 255, 85, 0, 20]), 4), (32, 1))
    [reading] = reader([image])
    assert reading.text == "abc"
    log_probs = reader.network(Preprocessing()(image)[None])[:, 0].log_softmax(-1)
    for character, label, frames in zip(reading.characters, (1, 2, 3), ([1, 2], [4], [5, 6]), strict=True):
        expected = log_probs[frames, label].mean().exp().item()
        assert character.confidence == pytest.approx(expected, rel=1e-5)
    assert reading.characters[0].confidence < 0.9


def test_recognizer_no_text():
    assert recognizer()([]) == []
    [reading] = recognizer()([stripes("----")])
    assert (reading.text, reading.characters) == ("", [])
    assert 0.99 < reading.confidence <= 1


def test_confidence_at_most_one():
    """Rounding can make the sum of alignment probabilities exceed one."""

    class IsCertain(GrayLevelNetwork):
        def output_lengths(self, widths):
            return torch.full((len(widths),), 200)

        def forward(self, images, widths=None):
            logits = torch.randn(200, len(images), 4, generator=torch.Generator().manual_seed(0))
            return logits + 17.2 * nn.functional.one_hot(logits.argmax(-1), 4)

    readings = Recognizer(IsCertain(), CHARSET, Preprocessing())([stripes("-a")] * MAX_BATCH_SIZE)
    assert max(reading.confidence for reading in readings) == 1


def test_recognizer_blank_not_first():
    class Reversed(GrayLevelNetwork):
        def forward(self, images, widths=None):
            return super().forward(images).flip(-1)

    reader = Recognizer(Reversed(), Charset("cba", blank=3), Preprocessing())
    [reading] = reader([stripes("-aa-c-")])
    assert reading.text == "ac"
    assert 0.99 < reading.confidence <= 1


@slow_examples
@given(st.lists(st.text("-abc", min_size=2, max_size=9), max_size=40))
def test_recognizer_keeps_order(texts):
    def collapsed(text):
        return "".join(b for a, b in zip("-" + text, text, strict=False) if b not in ("-", a))

    reader = recognizer()
    readings = reader([stripes(text) for text in texts])
    assert [reading.text for reading in readings] == [collapsed(text) for text in texts]


@slow_examples
@given(st.lists(st.integers(5, 80), max_size=20), st.booleans())
@example([40, 64, 40, 9, 64, 45, 60, 50], False)
def test_recognizer_batch_invariance(widths, with_beam_search):
    checkpoint = random_checkpoint()
    decoding = BeamSearch(checkpoint.charset, nbest=2) if with_beam_search else greedy
    reader = Recognizer(checkpoint.network, checkpoint.charset, checkpoint.preprocessing, decoding)
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, (32, width), np.uint8) for width in widths]
    together, alone = reader(images), [reader([image])[0] for image in images]
    for reading, expected in zip(together, alone, strict=True):
        assert (reading.text, spans(reading)) == (expected.text, spans(expected))
        assert confidences(reading) == pytest.approx(confidences(expected), rel=1e-3)


def test_random_checkpoint_reads_different_texts():
    checkpoint = random_checkpoint()
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, (32, width), np.uint8) for width in (40, 64, 40, 9, 64, 45, 60, 50)]
    readings = Recognizer(checkpoint.network, checkpoint.charset, checkpoint.preprocessing)(images)
    assert len({reading.text for reading in readings}) > 3


def test_recognizer_batches_by_width():
    reader = recognizer()
    reader([stripes("--abc")] * 18 + [stripes("-a")] * 2 + [stripes("--ab-c")])
    shapes = [(shape[0], shape[3]) for shape in reader.network.batches]
    assert shapes == [(2, 8), (16, 20), (3, 24)]
    reader.network.batches.clear()
    wide = Image.new("L", (MAX_COLUMNS // 3, 32), 255)
    reader([wide] * 7)
    assert [shape[0] for shape in reader.network.batches] == [3, 3, 1]


def test_recognizer_sets_eval_mode():
    network = Architecture("CRNN", 4, nh=4, width=0.1).build()
    assert network.training
    Recognizer(network, CHARSET, Preprocessing())
    assert not network.training


def test_recognizer_color():
    class ReadsRed(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(9.0))

        def output_lengths(self, widths):
            return torch.ones(len(widths), dtype=torch.int64)

        def forward(self, images, widths=None):
            red, blue = images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))
            return (torch.stack([red * 0, red, blue], -1) * self.scale)[None]

    reader = Recognizer(ReadsRed(), Charset("rb"), Preprocessing(channels=3))
    texts = [reading.text for reading in reader([Image.new("RGB", (9, 9), name) for name in ("red", "blue")])]
    assert texts == ["r", "b"]


def test_recognizer_non_finite_logits():
    reader = recognizer(margin=float("nan"))
    with pytest.raises(ValueError, match="logits that are not finite: its weights are unusable"):
        reader([stripes("-a")])


def test_recognizer_errors_name_image(tmp_path):
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ImageError, match=r"text.png: not an image in a known format"):
        recognizer()([stripes("-a"), tmp_path / "text.png"])
    with pytest.raises(ImageError, match=r"^images\[1\]: the image has no pixels"):
        recognizer()([stripes("-a"), Image.new("L", (0, 4))])
    with pytest.raises(TypeError, match="must be a PIL image, an array, a path or a BytesIO, got NoneType"):
        recognizer()([None])


def test_stream_order(tmp_path, monkeypatch):
    monkeypatch.setattr("crnn_ext.ocr.reading.recognizer.LOOKAHEAD", 3)
    images = [stripes(text) for text in ("-a", "-b--c", "ab-")]
    items = [*images, tmp_path / "missing.png", *images[::-1]]
    results = list(recognizer().stream(iter(items)))
    assert all(item is expected for (item, _), expected in zip(results, items, strict=True))
    *others, failed = (results[index][1] for index in (0, 1, 2, 4, 5, 6, 3))
    assert [reading.text for reading in others] == ["a", "bc", "ab", "ab", "bc", "a"]
    assert isinstance(failed, ImageError)
    assert str(failed) == "No such file or directory"

    opened = recognizer().stream(range(3), lambda index: images[index])
    assert [(index, reading.text) for index, reading in opened] == [(0, "a"), (1, "bc"), (2, "ab")]
    assert list(recognizer().stream([])) == []


def test_stream_bounded_memory(monkeypatch):
    """Also if some images cannot be read and the caller keeps their errors."""
    alive, most, taken = weakref.WeakSet(), 0, 0

    class Counted(torch.Tensor):
        pass

    def prepare(reader, image):
        nonlocal most
        if image is None:
            raise ImageError("none")
        prepared = PreprocessedImage(Preprocessing()(image).as_subclass(Counted), image.shape[1])
        alive.add(prepared.pixels)
        most = max(most, len(alive))
        return prepared

    def images():
        nonlocal taken
        for taken in range(1, 2001):
            yield None if taken % 100 == 0 else stripes("-a")

    monkeypatch.setattr(Recognizer, "preprocess", prepare)
    gc.disable()  # garbage collection could hide leaked images
    try:
        errors = []
        for read, (_, reading) in enumerate(recognizer().stream(images())):
            assert taken - read <= LOOKAHEAD
            if isinstance(reading, ImageError):
                errors.append(reading)
    finally:
        gc.enable()
    assert len(errors) == 20
    assert LOOKAHEAD - 10 < most <= LOOKAHEAD


@pytest.mark.parametrize(
    "single",
    [
        *("page.png", Path("page.png"), b"png", io.BytesIO(b"png"), Image.new("L", (40, 32)), 7, None),
        *(np.zeros((32, 40), np.uint8), np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40, 4), np.uint8)),
    ],
)
def test_recognizer_rejects_single_image(single):
    for read in (recognizer(), recognizer().stream):
        with pytest.raises(TypeError, match=r"^images must be an iterable of images, got a single \w+$"):
            read(single)


def test_recognizer_array_batch():
    readings = recognizer()(np.stack([stripes("-a-b"), stripes("c---")]))
    assert [reading.text for reading in readings] == ["ab", "c"]


def test_load_device(tmp_path):
    save_checkpoint(tmp_path / "model", random_checkpoint())
    image = np.random.default_rng(0).integers(0, 256, (32, 64), np.uint8)
    reader = crnn_ext.load(tmp_path / "model")
    assert reader.device == torch.device("cpu")
    assert reader([image]) == Recognizer.load(str(tmp_path / "model"), device="cpu")([image])
    assert not reader.network.training
    # The meta device is always available, though no operator of this package runs on it.
    assert crnn_ext.load(tmp_path / "model", device="meta").device == torch.device("meta")
    assert reader.to("meta") is reader
    assert reader.device == torch.device("meta")
    with pytest.raises(CheckpointError, match="missing: No such file"):
        crnn_ext.load(tmp_path / "missing")


def test_import_is_lazy():
    program = """
import sys, crnn_ext
print(sorted({'PIL', 'safetensors', 'crnn_ext.ocr', 'torch._dynamo'} & sys.modules.keys()))
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
