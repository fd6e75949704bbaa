"""Preprocessing of images of any size, and settings from untrusted files."""

import contextlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2
from crnn_ext.ocr import Architecture, ImageError, Preprocessing
from crnn_ext.ocr.images.preprocessing import MAX_COLUMNS, MIN_COLUMNS, parse_resize


@pytest.mark.parametrize(
    ("size", "columns"),
    [
        ((128, 32), 128),
        ((64, 16), 128),
        ((300, 64), 150),
        ((3, 1), 96),
        ((1, 32), 8),
        ((5, 4000), 8),
        ((2000, 10), 6400),
        ((16_384, 32), 16_384),
    ],
)
def test_preprocessing_keeps_aspect_ratio(size, columns):
    tensor = Preprocessing()(Image.new("L", size))
    assert tensor.shape == (1, 32, columns)
    assert tensor.dtype == torch.float32


def test_preprocessing_rejects_too_wide_image():
    message = "60000 x 3 pixels, scaled to 32 rows, have 640000 columns; the limit is 16384"
    with pytest.raises(ImageError, match=message):
        Preprocessing()(Image.new("L", (60_000, 3)))


@pytest.mark.parametrize("size", [(128, 32), (3, 1), (1, 32), (5, 4000), (60_000, 3)])
@pytest.mark.parametrize("width", [MIN_COLUMNS, 100, MAX_COLUMNS])
def test_preprocessing_fixed_width(size, width):
    preprocessing = Preprocessing(width=width)
    assert preprocessing(Image.new("L", size)).shape == (1, 32, width)
    assert preprocessing.columns(*size) == width


def test_preprocessing_fixed_width_stretches_evenly():
    halves = np.repeat(np.uint8([[0, 255]]), 32, axis=0).repeat(150, axis=1)
    stretched = Preprocessing(width=60)(halves)[0]
    assert stretched[:, :28].unique().tolist() == [-1]
    assert stretched[:, 32:].unique().tolist() == [1]


def test_parse_resize():
    assert parse_resize("keep") is None
    assert parse_resize("fixed:100") == 100
    wrong = ("", "Keep", "fixed", "fixed:", "fixed:-5", "fixed:1e2", "fixed: 100", "fixed:\u0661", "fixed:7")
    message = "^resize must be keep, or fixed:COLUMNS with 8 to 16384 columns"
    for text in wrong:
        with pytest.raises(ValueError, match=message):
            parse_resize(text)


def test_preprocessing_columns_are_rounded():
    assert [Preprocessing().columns(*size) for size in [(99, 31), (101, 33)]] == [102, 98]  # 102.2 and 97.9


def test_preprocessing_normalizes():
    black_and_white = np.repeat(np.uint8([[0, 255]]), 32, axis=0).repeat(16, axis=1)
    assert Preprocessing()(black_and_white)[0, 0].unique().tolist() == [-1, 1]
    assert Preprocessing(mean=1, std=0.25)(black_and_white)[0, 0].unique().tolist() == [-4, 0]
    left, right = Preprocessing()(black_and_white)[0].split(16, dim=1)
    assert (left.max(), right.min()) == (-1, 1)


def test_preprocessing_channels():
    red = Image.new("RGB", (32, 32), "red")
    assert Preprocessing(channels=3)(red)[:, 5, 7].tolist() == [1, -1, -1]
    assert Preprocessing(channels=1)(red)[:, 5, 7].tolist() == [pytest.approx(76 / 255 * 2 - 1)]


def test_preprocessing_shrinks_by_area():
    # A stripe in every tenth row would vanish or dominate if rows were sampled, not averaged.
    stripes = np.full((320, 320), 255, np.uint8)
    stripes[::10] = 0
    assert Preprocessing()(stripes)[0, 4:-4].sub(0.8).abs().max() < 0.02


@pytest.mark.parametrize("network", [CRNN, CRNN_v2, CRNN_res])
def test_min_columns_give_a_frame(network):
    assert network(32, 1, 2, 4, width=0.1).min_width <= MIN_COLUMNS


BAD_PREPROCESSING = [
    ({"height": 0}, "Preprocessing: height must be in [1, 1024], got 0"),
    ({"height": 32.0}, "Preprocessing: height must be an int, got float"),
    ({"height": True}, "Preprocessing: height must be an int, got bool"),
    ({"channels": 2}, "Preprocessing: channels must be 1 or 3, got 2"),
    ({"channels": 4}, "Preprocessing: channels must be in [1, 3], got 4"),
    ({"mean": float("nan")}, "Preprocessing: mean must be in [-1000, 1000], got nan"),
    ({"mean": "0.5"}, "Preprocessing: mean must be a number, got str"),
    ({"width": 7}, "Preprocessing: width must be in [8, 16384], got 7"),
    ({"width": 16385}, "Preprocessing: width must be in [8, 16384], got 16385"),
    ({"width": 100.0}, "Preprocessing: width must be an int, got float"),
    ({"std": 0}, "Preprocessing: std must be in [0.001, 1000], got 0"),
    ({"std": float("inf")}, "Preprocessing: std must be in [0.001, 1000], got inf"),
    ({"std": 10**400}, f"Preprocessing: std must be in [0.001, 1000], got {10**59}"),
]
BAD_ARCHITECTURES = [
    ({"name": "VGG"}, "Architecture: name must be one of 'CRNN', 'CRNN_v2', 'CRNN_res', got 'VGG'"),
    ({"name": ["CRNN"]}, "Architecture: name must be a str, got list"),
    ({"nclass": 1}, "Architecture: nclass must be in [2, 1048576], got 1"),
    ({"nh": 10**9}, "Architecture: nh must be in [1, 16384], got 1000000000"),
    ({"imgH": 64}, "Architecture: imgH must be in [32, 32], got 64"),
    ({"width": float("nan")}, "Architecture: width must be in [0.001, 16], got nan"),
    ({"leakyRelu": 1}, "Architecture: leakyRelu must be a bool, got int"),
    (
        {"name": "CRNN_res", "leakyRelu": True},
        "Architecture: leakyRelu must be False for CRNN_res, got True",
    ),
]


@pytest.mark.parametrize(("change", "message"), [*BAD_PREPROCESSING, *BAD_ARCHITECTURES])
def test_from_dict_rejects_settings(change, message):
    good = Preprocessing() if message.startswith("Pre") else Architecture("CRNN", 11)
    with pytest.raises((TypeError, ValueError)) as caught:
        type(good).from_dict({**good.to_dict(), **change})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "good",
    [
        Preprocessing(height=32, mean=0.1),
        Preprocessing(width=100),
        Architecture("CRNN_v2", 7, nh=8, width=0.2),
    ],
)
def test_settings_json_round_trip(good):
    written = json.loads(json.dumps(good.to_dict()))
    assert type(good).from_dict(written) == good
    for data in ({}, {**written, "more": 1}):
        with pytest.raises(ValueError, match="must have the keys"):
            type(good).from_dict(data)
    with pytest.raises(TypeError, match="must be a mapping, got NoneType"):
        type(good).from_dict(None)


def test_preprocessing_from_dict_without_width():
    written = Preprocessing(height=48).to_dict()
    del written["width"]
    assert Preprocessing.from_dict(written) == Preprocessing(height=48)


@given(st.data())
def test_from_dict_fuzzed(data):
    values = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers())
    )
    for good in (Preprocessing(), Architecture("CRNN_res", 11)):
        change = data.draw(st.dictionaries(st.sampled_from(sorted(good.to_dict())), values, max_size=3))
        with contextlib.suppress(TypeError, ValueError):
            changed = {**good.to_dict(), **change}
            assert type(good).from_dict(changed).to_dict() == changed


def test_architecture_build():
    built = Architecture("CRNN", 5, nh=4, nc=3, leakyRelu=True, width=0.1).build()
    assert type(built) is CRNN
    assert (built.nc, built.conv1.out_channels, built.relu1.negative_slope) == (3, 8, 0.2)
    assert built.training
    residual = Architecture("CRNN_res", 5, nh=4, width=0.1).build()
    assert type(residual) is CRNN_res
    assert residual(torch.zeros(1, 1, 32, 16)).shape[2] == 5
