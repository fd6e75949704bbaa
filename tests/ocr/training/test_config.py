"""Settings of a training run: validation, saving, loading."""

import json

import pytest

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr.data import DataError
from crnn_ext.ocr.training import TrainingConfig


def test_config_round_trip(tmp_path):
    config = TrainingConfig(data="lines", val="others", lr=2e-3, precision="bfloat16", resize="fixed:100")
    config.save(tmp_path / "config.json")
    assert TrainingConfig.load(tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["lr"] == 2e-3


def test_config_file_defaults(write_file):
    assert TrainingConfig.load(write_file('{"epochs": 3}')) == TrainingConfig(epochs=3)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("epochs", 0, r"epochs must be in \[1, 1000000\], got 0"),
        ("epochs", 1.5, "epochs must be an int, got float"),
        ("lr", 0, "lr must be in"),
        ("lr", float("nan"), "lr must be in"),
        ("ema", 1, r"ema must be in \[0, 0.99999\], got 1"),
        ("warmup", 1, "warmup must be in"),
        (
            "precision",
            "int8",
            "precision must be one of 'float32', 'tf32', 'bfloat16', 'float16', got 'int8'",
        ),
        ("augment", -1, "augment must be in"),
        ("patience", 0, "patience must be in"),
        ("workers", -1, "workers must be in"),
        ("val_fraction", 0, "val_fraction must be in"),
        ("leaky_relu", 1, "leaky_relu must be a bool, got int"),
        ("val", 3, "val must be a str or null, got int"),
        ("network", "VGG", "network must be one of 'CRNN', 'CRNN_v2', 'CRNN_res', got 'VGG'"),
        ("network", ["CRNN"], "network must be a str, got list"),
        ("channels", 2, "channels must be 1 or 3, got 2"),
        ("hidden", 0, "hidden must be in"),
        ("resize", "wide", "resize must be keep, or fixed:COLUMNS with 8 to 16384 columns, got 'wide'"),
        ("resize", "fixed:3", "resize must be keep"),
        ("width", 0, "width must be in"),
    ],
)
def test_config_rejects_setting(setting, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TrainingConfig(**{setting: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must be a JSON object"),
        ("{", "Expecting"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "utf-8"),
        ('{"learning_rate": 1}', "unknown setting 'learning_rate'"),
        ('{"epoch": 1}', r"unknown setting 'epoch'; did you mean epochs\?"),
        ('{"epochs": "many"}', "epochs must be an int"),
    ],
)
def test_config_rejects_file(write_file, content, message):
    path = write_file(content)
    with pytest.raises(DataError, match=message) as raised:
        TrainingConfig.load(path)
    assert str(path) in str(raised.value)


def test_config_missing_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        TrainingConfig.load(tmp_path / "config.json")
