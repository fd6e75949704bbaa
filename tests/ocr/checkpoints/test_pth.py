"""Weights from .pth files: every network and file layout; no file runs code or crashes the command."""

import io
import pickle
import re
import zipfile

import pytest
import torch
from helpers.fuzz import slow_examples
from helpers.malicious_pickle import MaliciousPickle
from helpers.networks import NETWORKS, small_network
from hypothesis import given
from hypothesis import strategies as st

from crnn_ext.cli import main
from crnn_ext.models import CRNN, CRNN_v2
from crnn_ext.ocr import Architecture, CheckpointError, Preprocessing, load_checkpoint
from crnn_ext.ocr.checkpoints.pth import load_pth
from crnn_ext.text import Charset

CHARSET = Charset("badc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pth"


def counts(state):
    return {name for name in state if name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": {f"module.{name}": state[name] for name in state}},
        lambda state: {"model_state_dict": state, "optimizer": {"state": {}}, "loss": 0.5},
        lambda state: {"model": {name: state[name] for name in state.keys() - counts(state)}},
        lambda state: {
            name: tensor.double() if "num" not in name else tensor for name, tensor in state.items()
        },
    ],
    ids=["state dict", "DataParallel", "with an optimizer", "without counts", "float64"],
)
def test_load_pth_layout(path, network, wrap):
    model = small_network(network, nc=3)
    torch.save(wrap(model.state_dict()), path)
    checkpoint = load_pth(path, CHARSET, mean=0.25, std=1.0)
    assert checkpoint.architecture.name == network.__name__
    assert checkpoint.charset == CHARSET
    assert checkpoint.preprocessing == Preprocessing(channels=3, mean=0.25, std=1.0)
    assert checkpoint.metadata == {"imported from": "model.pth"}
    images = torch.randn(2, 3, 32, 40)
    torch.testing.assert_close(checkpoint.network(images), model(images), rtol=0, atol=0)


def test_load_pth_legacy_format(path):
    torch.save(small_network(CRNN).state_dict(), path, _use_new_zipfile_serialization=False)
    assert load_pth(path, CHARSET, leaky_relu=True).architecture.leakyRelu


@pytest.mark.parametrize("name", ["CRNN", "CRNN_v2", "CRNN_res"])
@slow_examples
@given(nclass=st.integers(2, 40), nh=st.integers(1, 9), nc=st.integers(1, 3), width=st.floats(0.001, 2.5))
def test_of_state_infers_architecture(name, nclass, nh, nc, width):
    made = Architecture(name, nclass, nh, nc=nc, width=width)
    found = Architecture.from_state_dict(made.build_on_meta().state_dict())
    assert (found.name, found.nclass, found.nh, found.nc) == (name, nclass, nh, nc)
    assert found.tensor_shapes() == made.tensor_shapes()


@pytest.mark.parametrize("name", ["CRNN", "CRNN_v2", "CRNN_res"])
def test_of_state_exact_width(name):
    for width in (1, 0.75, 0.5, 0.25, 2):
        made = Architecture(name, 37, width=width)
        assert Architecture.from_state_dict(made.build_on_meta().state_dict()) == made


def save_torchscript(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def save_compressed(path):
    torch.save(small_network(CRNN).state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
        archive.writestr(f"{entry.split('/')[0]}/more", bytes(1 << 20))


def write_huge_bytearray_pickle(path):
    """Write a pickle of a few bytes that requests 100 GB, which torch would allocate."""
    path.write_bytes(b"\x80\x02cbuiltins\nbytearray\n" + pickle.dumps(10**11, 2)[2:-1] + b"\x85R.")


def compressed_archive(write, path):
    write(path)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", path.read_bytes())
        archive.writestr("model/version", b"3\n")
    return file.getvalue() + bytes(1000)


def save_damaged_directory(path):
    torch.save(small_network(CRNN).state_dict(), path)
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[:place] + b"PK\x01\x03" + content[place + 4 :])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: torch.save(small_network(CRNN), path),
            r"contains more than weights \(crnn_ext.models.*\), which",
        ),
        (save_torchscript, "TorchScript programs could run code and are not loaded"),
        (save_compressed, "the archive is compressed"),
        (write_huge_bytearray_pickle, r"contains more than weights \(bytearray\)"),
        (
            lambda path: path.write_bytes(compressed_archive(write_huge_bytearray_pickle, path)),
            "the archive is compressed",
        ),
        (
            lambda path: path.write_bytes(b""),
            "cannot read the file: it is damaged or not written by torch.save",
        ),
        (lambda path: path.write_bytes(b"PK\3\4 and so on"), "cannot read the file: it is damaged"),
        (save_damaged_directory, "cannot read the file: it is damaged"),
        (lambda path: path.write_bytes(pickle.dumps([print])), "could run code|cannot read the file"),
        (lambda path: torch.save([1], path), "the file must contain a state dict, got list"),
        (lambda path: torch.save({"model": 1}, path), "the file must contain a state dict, got int"),
        (
            lambda path: torch.save({"net": {}}, path),
            "got dict for 'net'; a file with other contents must name it state",
        ),
        (lambda path: torch.save({1: torch.ones(1)}, path), "must map names to tensors, got Tensor for 1"),
        (lambda path: torch.save({}, path), "the tensors belong to none of CRNN, CRNN_v2, CRNN_res"),
        (
            lambda path: torch.save({"a": torch.ones(1).expand(1 << 40)}, path),
            r"tensors must be no larger than the file \(\d+ bytes\), got 4398046511104 bytes",
        ),
        (
            lambda path: torch.save({"a": torch.ones(2).to_sparse()}, path),
            "unquantized CPU tensors; 'a' is not",
        ),
        (
            lambda path: torch.save({"a": torch.empty(2, device="meta")}, path),
            "unquantized CPU tensors; 'a' is not",
        ),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_load_pth_rejects_file(path, write, message):
    write(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pth(path, CHARSET)
    assert str(caught.value).startswith(f"{path}: ")
    assert "weights_only` to `False`" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_load_pth_runs_no_code(path, tmp_path, zipped):
    state = {**small_network(CRNN).state_dict(), "more": MaliciousPickle(tmp_path / "trace")}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"contains more than weights \(getattr\), which could run"):
        load_pth(path, CHARSET)
    assert not (tmp_path / "trace").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "trace").exists(), "the pickle must run code when loaded unsafely"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda state: state.pop("conv5.bias"), {}, "1 tensors are missing; the first is 'conv5.bias'"),
        (lambda state: state.update(more=torch.ones(1)), {}, "1 tensors are unknown; the first is 'more'"),
        (lambda state: state["bn5.bias"].fill_(float("nan")), {}, "bn5.bias must be finite"),
        (
            lambda state: state.update({"conv2.bias": torch.ones(9)}),
            {},
            r"conv2.bias must be .*\(8,\), .*\(9,\)",
        ),
        (lambda state: None, {"network": "CRNN_v2"}, "the tensors belong to none of"),
        (lambda state: None, {"network": "CRNN_res"}, "tensors are missing"),
        (
            lambda state: None,
            {"network": "VGG"},
            "name must be one of 'CRNN', 'CRNN_v2', 'CRNN_res', got 'VGG'",
        ),
        (lambda state: None, {"std": 0.0}, "std must be in"),
    ],
)
def test_load_pth_rejects_weights(path, change, options, message):
    state = small_network(CRNN).state_dict()
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_pth(path, CHARSET, **options)


@given(data=st.data())
def test_load_pth_fuzzed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save(
        small_network(CRNN, nh=1).state_dict(), path, _use_new_zipfile_serialization=data.draw(st.booleans())
    )
    damaged = bytearray(path.read_bytes())
    size = len(damaged)
    for _ in range(data.draw(st.integers(0, 3))):
        # Often in the pickle near the start, or in the archive directory at the end.
        places = st.integers(0, 4000) | st.integers(size - 4000, size - 1) | st.integers(0, size - 1)
        damaged[data.draw(places)] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, size)) :]
    path.write_bytes(damaged)
    try:
        load_pth(path, CHARSET)
    except CheckpointError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (it need not raise)


def test_import_command(path, write_file, tmp_path, capsys):
    model = small_network(CRNN_v2)
    torch.save(model.state_dict(), path)
    output = tmp_path / "model.safetensors"
    options = ["--blank", "4", "--leaky-relu", "--mean", "0.25", "--std", "0.75", "--network", "CRNN_v2"]
    options += ["--resize", "fixed:100"]
    arguments = [
        "import",
        str(path),
        "-o",
        str(output),
        "--charset",
        str(write_file("b\na\nd\nc\n")),
        *options,
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{output}: CRNN_v2 with 5 classes, nh 4, nc 1, width 0.03125\n"
    checkpoint = load_checkpoint(output)
    assert checkpoint.charset == Charset("badc", blank=4)
    assert checkpoint.preprocessing == Preprocessing(mean=0.25, std=0.75, width=100)
    assert checkpoint.architecture.leakyRelu
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in checkpoint.network.state_dict().items())


def test_import_command_errors(path, write_file, tmp_path, capsys):
    torch.save(small_network(CRNN).state_dict(), path)
    good, short, empty = (str(write_file(content)) for content in ("badc", "bad", ""))
    output = tmp_path / "model.safetensors"
    for weights, charset, target, message in [
        (
            path,
            short,
            output,
            rf"{path}: checkpoint: characters .* must be 5 \(nclass of the architecture\), got 4",
        ),
        (path, empty, output, "a charset file must hold at least one character"),
        (path, "missing", output, "missing: No such file or directory"),
        (path, good, tmp_path / "no" / "model", "no/model: the folder does not exist"),
        ("missing", good, output, "missing: No such file or directory"),
        (path, good, path, "-o must not name an input file"),
        (path, good, good, "-o must not name an input file"),
        (good, good, output, "it is damaged or not written by torch.save"),
    ]:
        assert main(["import", str(weights), "-o", str(target), "--charset", charset]) == 2
        output_text, errors = capsys.readouterr()
        assert output_text == ""
        assert errors.startswith("crnn-ext: ")
        assert errors.count("\n") == 1
        assert re.search(message, errors), errors
    assert not output.exists()
