"""Exported checkpoints compute the same as the network, for every batch and width."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.docs import blocks
from helpers.fuzz import slow_examples
from helpers.networks import requires_dynamic_width_export
from helpers.random_checkpoint import random_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crnn_ext.cli import main
from crnn_ext.ocr import Recognizer, save_checkpoint
from crnn_ext.ocr.checkpoints import export
from crnn_ext.ocr.checkpoints.checkpoint import settings_json
from crnn_ext.text import Charset

pytestmark = requires_dynamic_width_export

CHARSET = Charset("é中\n")


@pytest.fixture(scope="module")
def checkpoint():
    return random_checkpoint("CRNN", nc=3)._replace(charset=CHARSET, metadata={"data": "none"})


@pytest.fixture(scope="module")
def onnx_file(checkpoint, tmp_path_factory):
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    assert export.export_checkpoint(path, checkpoint, "onnx") < 1e-3
    return path


@pytest.fixture(scope="module")
def session(onnx_file):
    import onnxruntime

    return onnxruntime.InferenceSession(onnx_file)


batches = st.integers(8, 200).flatmap(
    lambda columns: st.tuples(st.lists(st.integers(4, columns), min_size=1, max_size=5), st.just(columns))
)


def assert_matches_network(run, network, widths, columns):
    images = torch.randn(
        len(widths), network.nc, 32, columns, generator=torch.Generator().manual_seed(columns)
    )
    widths = torch.tensor(widths)
    for n, width in enumerate(widths):
        images[n, :, :, width:] = float("nan")  # padding values must not matter
    logits, lengths = map(torch.as_tensor, run(images, widths))
    assert lengths.equal(network.output_lengths(widths))
    with torch.inference_mode():
        expected = network(images, widths)
    assert logits.shape == expected.shape
    for n, length in enumerate(lengths):
        torch.testing.assert_close(logits[:length, n], expected[:length, n], rtol=0, atol=1e-3)


@slow_examples
@given(batch=batches)
def test_onnx_matches_network(session, checkpoint, batch):
    def run(images, widths):
        return session.run(["logits", "lengths"], {"images": images.numpy(), "widths": widths.numpy()})

    assert_matches_network(run, checkpoint.network, *batch)


def test_onnx_signature_and_metadata(session, onnx_file, checkpoint):
    def described(values):
        return [(value.name, value.type, value.shape) for value in values]

    assert described(session.get_inputs()) == [
        ("images", "tensor(float)", ["N", 3, 32, "W"]),
        ("widths", "tensor(int64)", ["N"]),
    ]
    assert described(session.get_outputs()) == [
        ("logits", "tensor(float)", ["T", "N", 4]),
        ("lengths", "tensor(int64)", ["N"]),
    ]
    assert session.get_modelmeta().custom_metadata_map == {"crnn_ext": settings_json(checkpoint)}
    assert b"/crnn_ext/" not in onnx_file.read_bytes(), "the file must not contain paths of this machine"
    weights = sum(tensor.nbytes for tensor in checkpoint.network.state_dict().values())
    assert onnx_file.stat().st_size < 1.5 * weights + 100_000


@pytest.fixture(scope="module")
def exported_pt2(tmp_path_factory):
    """A checkpoint, the file exported from it and the output of the command."""
    checkpoint = random_checkpoint("CRNN_v2", nc=3)._replace(charset=CHARSET)
    path = tmp_path_factory.mktemp("export") / "model.pt2"
    save_checkpoint(path.with_name("model.safetensors"), checkpoint)
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = main(["export", str(path.with_name("model.safetensors")), "-o", str(path)])
    assert (status, errors.getvalue()) == (0, "")
    return checkpoint, path, output.getvalue()


def test_export_command_pt2(exported_pt2):
    _, path, output = exported_pt2
    assert output == f"{path}: CRNN_v2, logits within 0.0e+00 of torch's\n"
    extra_files = {"crnn_ext": ""}
    torch.export.load(path, extra_files=extra_files)
    assert json.loads(extra_files["crnn_ext"])["charset"] == {"characters": "é中\n", "blank": 0}
    assert b"/crnn_ext/" not in path.read_bytes()


@pytest.fixture(scope="module")
def loaded_program(exported_pt2):
    return torch.export.load(exported_pt2[1]).module()


@slow_examples
@given(batch=batches)
def test_pt2_matches_network(loaded_program, exported_pt2, batch):
    assert_matches_network(loaded_program, exported_pt2[0].network, *batch)


def test_docs_example_matches_recognizer(onnx_file, checkpoint, exported_pt2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").symlink_to(onnx_file)
    Path("model.pt2").symlink_to(exported_pt2[1])
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 256, (48, 150, 3), np.uint8)).save("line.png")
    [with_onnxruntime, with_torch] = blocks("docs/how-to/export.md")
    names = {}
    exec(compile(with_onnxruntime, "docs/how-to/export.md", "exec"), names)
    recognizer = Recognizer(checkpoint.network, checkpoint.charset, checkpoint.preprocessing)
    [reading] = recognizer(["line.png"])
    assert names["text"] == reading.text
    assert len(names["text"]) > 2

    exec(compile(with_torch, "docs/how-to/export.md", "exec"), names)
    with torch.inference_mode():
        expected = exported_pt2[0].network(recognizer.preprocess("line.png").pixels.unsqueeze(0))
    torch.testing.assert_close(names["logits"], expected, rtol=0, atol=1e-5)


@pytest.fixture
def no_exporter(monkeypatch):
    """Replaces the slow exporters by stubs."""
    for name in ("_program", "_onnx", "_pt2"):
        monkeypatch.setattr(export, name, lambda *_: b"content")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda logits, lengths: (logits, lengths), 0),
        (lambda logits, lengths: (logits + 5e-4, lengths), 5e-4),
        (lambda logits, lengths: (logits + 2e-3, lengths), 2e-3),
        (lambda logits, lengths: (logits * np.nan, lengths), np.nan),
        (lambda logits, lengths: (logits[:-1], lengths), np.inf),
        (lambda logits, lengths: (logits, lengths - 1), np.inf),
    ],
)
@pytest.mark.usefixtures("no_exporter")
def test_export_rejects_deviating_program(tmp_path, monkeypatch, capsys, checkpoint, change, difference):
    network = checkpoint.network

    def run(images, widths):
        return change(network(images, widths), network.output_lengths(widths))

    monkeypatch.setattr(export, "_pt2_run", lambda content: run)
    save_checkpoint(tmp_path / "model", checkpoint)
    status = main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "out"), "--pt2"])
    output, errors = capsys.readouterr()
    assert (tmp_path / "out").exists() == (difference < 1e-3)
    if difference < 1e-3:
        assert status == 0
        assert output == f"{tmp_path}/out: CRNN, logits within {difference:.1e} of torch's\n"
    else:
        assert status == 2
        assert errors.startswith(
            f"crnn-ext: {tmp_path}/model: the exported logits must be within 0.001 of torch's, got"
        )
        assert f"a difference of {difference:.1g}" in errors


def test_difference_ignores_padding(checkpoint):
    """Logits after the last frame of an image are undefined."""
    network = checkpoint.network

    def run(images, widths):
        logits, lengths = network(images, widths), network.output_lengths(widths)
        padding = torch.arange(len(logits)).unsqueeze(1) >= lengths
        assert padding.any() == (len(widths) > 1)
        return logits.masked_fill(padding.unsqueeze(2), np.nan), lengths

    with torch.no_grad():
        assert export._difference(run, export._NetworkWithLengths(network), 3) == 0


@pytest.mark.usefixtures("no_exporter")
def test_export_without_onnxruntime(tmp_path, monkeypatch, capsys, checkpoint):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    save_checkpoint(tmp_path / "model", checkpoint)
    path = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "model"), "-o", str(path)]) == 1
    output, errors = capsys.readouterr()
    assert output == f"{path}: CRNN\n"
    assert errors == f"crnn-ext: {path}: not checked: onnxruntime is not installed\n"
    assert path.read_bytes() == b"content"


def test_export_command_errors(tmp_path, monkeypatch, capsys, checkpoint):
    model = tmp_path / "model.safetensors"
    save_checkpoint(model, checkpoint)
    (tmp_path / "damaged").write_bytes(model.read_bytes()[:-1])

    def complaint(source, target, *options):
        assert main(["export", str(source), "-o", str(target), *options]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        return errors

    onnx = tmp_path / "model.onnx"
    assert complaint(model, "model.txt") == (
        "crnn-ext: model.txt: the suffix must be .onnx or .pt2 unless --onnx or --pt2 is given\n"
    )
    assert "damaged: not a valid safetensors file" in complaint(tmp_path / "damaged", onnx)
    assert "missing: No such file" in complaint(tmp_path / "missing", onnx)
    with monkeypatch.context() as context:
        context.setattr(export, "_program", lambda *_: None)
        context.setitem(sys.modules, "onnxscript", None)
        assert "ONNX export needs onnxscript, which is not installed" in complaint(model, onnx)
        context.setattr(export, "_onnx", lambda *_: b"")
        context.setitem(sys.modules, "onnxruntime", None)
        target = tmp_path / "no" / "model"
        assert complaint(model, target, "--onnx") == f"crnn-ext: {target}: the folder does not exist\n"
    assert "-o must not name an input file" in complaint(model, model, "--onnx")
    assert not onnx.exists()
