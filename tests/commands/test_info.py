"""crnn-ext info prints a checkpoint's settings, one per line."""

import json

import pytest
import torch
from helpers.random_checkpoint import random_checkpoint
from safetensors.torch import save

from crnn_ext import __version__
from crnn_ext.cli import main
from crnn_ext.ocr import save_checkpoint
from crnn_ext.text import Charset


@pytest.fixture
def path(tmp_path):
    """A checkpoint whose characters and metadata contain line breaks and escape sequences."""
    checkpoint = random_checkpoint()._replace(
        charset=Charset("a\n\x1b"), metadata={"CER": "2.4 %", "data\n": "one\ntwo"}
    )
    save_checkpoint(tmp_path / "model", checkpoint)
    return tmp_path / "model"


def test_info_text(path, capsys):
    assert main(["info", str(path)]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    parameters = sum(parameter.numel() for parameter in random_checkpoint().network.parameters())
    assert output.splitlines() == [
        f"written by      crnn_ext {__version__}, format 1",
        f"network         CRNN, {parameters:,} parameters: nclass 4, nh 8, imgH 32, nc 1, leakyRelu False, "
        "width 0.125",
        "charset         3 characters, the blank is class 0",
        r"                a\n\x1b",
        "preprocessing   height 32, channels 1, mean 0.5, std 0.5",
        "columns             32   100   200   400   800  1600",
        "frames               9    26    51   101   201   401",
        "CER             2.4 %",
        r"data\n          one\ntwo",
    ]


def test_info_json(path, capsys):
    assert main(["info", "--json", str(path)]) == 0
    checkpoint = random_checkpoint()
    assert json.loads(capsys.readouterr().out) == {
        "format": 1,
        "version": __version__,
        "architecture": checkpoint.architecture.to_dict(),
        "parameters": sum(parameter.numel() for parameter in checkpoint.network.parameters()),
        "charset": {"characters": "a\n\x1b", "blank": 0},
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "frames": {"32": 9, "100": 26, "200": 51, "400": 101, "800": 201, "1600": 401},
        "metadata": {"CER": "2.4 %", "data\n": "one\ntwo"},
    }


def test_info_unknown_version(path, capsys):
    checkpoint = random_checkpoint()
    settings = {
        "format": 1,
        "architecture": {**checkpoint.architecture.to_dict(), "dropout": 0.1},
        "charset": checkpoint.charset.to_dict(),
        "preprocessing": checkpoint.preprocessing.to_dict(),
    }
    path.write_bytes(save(checkpoint.network.state_dict(), {"crnn_ext": json.dumps(settings)}))
    assert main(["info", str(path)]) == 0
    output, errors = capsys.readouterr()
    assert output.startswith("written by      crnn_ext of unknown version, format 1\n")
    assert errors == (
        f"crnn-ext: {path}: crnn_ext {__version__} ignores unknown settings: 'architecture.dropout'\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a valid safetensors file"),
        (save({"step": torch.ones(1)}, {"crnn_ext_training": "{}"}), "this is the state of a training run"),
        (None, "No such file or directory"),
    ],
)
def test_info_rejects_other_files(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "model").write_bytes(content)
    assert main(["info", str(tmp_path / "model")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"crnn-ext: {tmp_path}/model: {message}")
