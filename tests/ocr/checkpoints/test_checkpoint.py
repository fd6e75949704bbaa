"""Checkpoints: file contents, round trip, and rejection of damaged or malicious files."""

import contextlib
import json
import pickle
import struct
import warnings
from pathlib import Path

import pytest
import torch
from helpers.malicious_pickle import MaliciousPickle
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch.utils._python_dispatch import TorchDispatchMode

import crnn_ext
from crnn_ext.ocr import (
    Architecture,
    Checkpoint,
    CheckpointError,
    CheckpointWarning,
    Preprocessing,
    load_checkpoint,
    save_checkpoint,
)
from crnn_ext.text import Charset

CHARSET = Charset("aé0", blank=3)
SETTINGS = {
    "format": 1,
    "version": crnn_ext.__version__,
    "architecture": {
        "name": "CRNN",
        "nclass": 4,
        "nh": 3,
        "imgH": 32,
        "nc": 1,
        "leakyRelu": False,
        "width": 0.125,
    },
    "charset": {"characters": "aé0", "blank": 3},
    "preprocessing": {"height": 32, "channels": 1, "mean": 0.25, "std": 0.5, "width": None},
    "metadata": {"data": "digits, 60,000 Zeilen", "CER": "2.4 %"},
}


def make_checkpoint(name="CRNN", **arguments):
    torch.manual_seed(0)
    architecture = Architecture(name, 4, **{"nh": 3, "width": 0.125, **arguments})
    preprocessing = Preprocessing(channels=architecture.nc, mean=0.25)
    return Checkpoint(architecture.build(), architecture, CHARSET, preprocessing, SETTINGS["metadata"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def state():
    return make_checkpoint().network.state_dict()


def write(path, state, settings):
    text = settings if isinstance(settings, str) else json.dumps(settings)
    path.write_bytes(save(state, {"crnn_ext": text}))


@pytest.mark.parametrize("name", ["CRNN", "CRNN_v2", "CRNN_res"])
def test_checkpoint_round_trip(path, name):
    saved = make_checkpoint(name, nc=3)
    for _ in range(2):  # changes the running statistics
        saved.network(torch.randn(4, 3, 32, 20))
    save_checkpoint(path, saved)
    random_state = torch.get_rng_state()
    loaded = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert loaded[1:] == saved[1:]
    assert not loaded.network.training
    images = torch.randn(2, 3, 32, 40)
    assert torch.equal(loaded.network(images), saved.network.eval()(images))


def test_checkpoint_file_format(path):
    save_checkpoint(str(path), make_checkpoint())
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["crnn_ext"]) == SETTINGS
    assert header["conv1.weight"]["dtype"] == "F32"
    assert header["conv1.weight"]["shape"] == [8, 1, 3, 3]
    assert header["bn3.num_batches_tracked"]["dtype"] == "I64"


def test_load_handwritten_file(path, state):
    write(path, state, SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(path)[1:] == make_checkpoint()[1:]


def test_load_first_version(path, state):
    write(path, state, without(without(SETTINGS, "version"), "metadata"))
    loaded = load_checkpoint(path)
    assert loaded[1:4] == make_checkpoint()[1:4]
    assert loaded.metadata == {}
    assert loaded.version == ""
    save_checkpoint(path, loaded)
    assert load_checkpoint(path).version == crnn_ext.__version__


def test_load_warns_about_unknown_settings(path, state):
    written = {**with_architecture(dropout=0.1), "version": "9.1.0", "augmentation": [1], "owner": None}
    written["charset"] = {**written["charset"], "direction": "rtl"}
    written["preprocessing"] = {**written["preprocessing"], "invert": True}
    write(path, state, written)
    with pytest.warns(CheckpointWarning) as caught:
        loaded = load_checkpoint(path)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: crnn_ext {crnn_ext.__version__} ignores unknown settings: 'augmentation', 'owner', "
        "'architecture.dropout', 'charset.direction', 'preprocessing.invert'; the file was written by "
        f"crnn_ext 9.1.0, this is {crnn_ext.__version__}: update crnn_ext"
    ]
    assert caught[0].filename == __file__
    assert loaded[1:-1] == make_checkpoint()[1:-1]
    assert loaded.version == "9.1.0"


def test_load_warning_has_limited_length(path, state):
    write(path, state, {**SETTINGS, **{f"{index}" * 20: 0 for index in range(10_000)}})
    with pytest.warns(CheckpointWarning, match=r" \.\.\.$") as caught:
        load_checkpoint(path)
    assert len(str(caught[0].message)) < 600 + len(str(path))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"format": 2, "version": "9.1.0"}, "; the file was written by crnn_ext 9.1.0, this is .*: update"),
        ({"format": 2}, f"; the file was written by crnn_ext {crnn_ext.__version__}, this is .*: update"),
        ({"format": 2, "version": 5}, "; the file was written by a newer crnn_ext, this is .*: update"),
        (
            {"name": "CRNN_v9", "version": "9.1.0"},
            "; the file was written by crnn_ext 9.1.0, this is .*: update",
        ),
        ({"name": "CRNN_v9", "version": "0.0.9"}, "'CRNN_v9'$"),
        ({"name": "CRNN_v9"}, "'CRNN_v9'$"),
    ],
    ids=str,
)
def test_load_rejects_newer_format(path, state, change, hint):
    written = {**SETTINGS, **without(change, "name")}
    if "name" in change:
        written["architecture"] = {**SETTINGS["architecture"], "name": change["name"]}
    write(path, state, written)
    with pytest.raises(CheckpointError, match=hint):
        load_checkpoint(path)


def test_save_failure_keeps_old_file(path, monkeypatch):
    save_checkpoint(path, make_checkpoint())
    before = path.read_bytes()
    with monkeypatch.context() as context:
        context.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(path, make_checkpoint(nh=5))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        save_checkpoint(path.parent / "missing" / "model.safetensors", make_checkpoint())


def test_save_rejects_inconsistent_parts(path):
    good = make_checkpoint()
    broken = make_checkpoint()
    with torch.no_grad():
        broken.network.conv1.bias[2] = float("nan")
    for bad, message in [
        (
            good._replace(charset=Charset("ab")),
            r"characters .* must be 4 \(nclass of the architecture\), got 3",
        ),
        (
            good._replace(preprocessing=Preprocessing(channels=3)),
            r"must be 1 \(nc of the architecture\), got 3",
        ),
        (
            good._replace(preprocessing=Preprocessing(height=48)),
            r"must be 32 \(imgH of the architecture\), got 48",
        ),
        (
            good._replace(network=make_checkpoint(nh=4).network),
            r"must be torch.float32 \(12, 64\), got .* \(16, 64\)",
        ),
        (
            good._replace(network=make_checkpoint("CRNN_v2").network),
            "tensors are missing; the first is 'bn3.bias'",
        ),
        (
            good._replace(network=make_checkpoint().network.double()),
            "must be torch.float32 .* got torch.float64",
        ),
        (broken, "conv1.bias must be finite, got NaN or infinity"),
        (good._replace(metadata={"CER": 2.4}), "metadata must map str to str, got 'CER': 2.4"),
        (good._replace(metadata={"log": "x" * 65534}), "at most 65536 characters, got 65537"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            save_checkpoint(path, bad)
    assert list(path.parent.iterdir()) == []


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


def with_architecture(**change):
    return {**SETTINGS, "architecture": {**SETTINGS["architecture"], **change}}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", "metadata entry 'crnn_ext' is not valid JSON"),
        ("[" * 100_000, "metadata entry 'crnn_ext' is not valid JSON"),
        ('{"format": ' + "9" * 5000 + "}", "metadata entry 'crnn_ext' is not valid JSON"),
        ("null", "checkpoint must be a mapping, got NoneType"),
        ([SETTINGS], "checkpoint must be a mapping"),
        ({}, "checkpoint: format must be an int, got NoneType"),
        ({**SETTINGS, "format": 2, "more": 1}, r"checkpoint: format must be in \[1, 1\], got 2"),
        ({**SETTINGS, "version": 1}, "checkpoint: version must be a str, got int"),
        ({**SETTINGS, "metadata": None}, "checkpoint: metadata must be a mapping, got None"),
        ({**SETTINGS, "metadata": {"CER": 2.4}}, "metadata must map str to str, got 'CER': 2.4"),
        ({**SETTINGS, "metadata": {"log": "x" * 65534}}, "at most 65536 characters, got 65537"),
        (without(SETTINGS, "charset"), "checkpoint must have the keys"),
        ({**SETTINGS, "architecture": []}, r"Architecture must be a mapping, got list"),
        (with_architecture(name="__import__"), "Architecture: name must be one of 'CRNN',"),
        (with_architecture(nh=10**9), "Architecture: nh must be in"),
        (with_architecture(width=10**400), "Architecture: width must be in"),
        (with_architecture(nclass=5), r"characters .* must be 5 \(nclass of the architecture\), got 4"),
        (with_architecture(nh=2), "must be .*, got"),
        (with_architecture(name="CRNN_res"), "tensors are missing"),
        ({**SETTINGS, "charset": {"characters": "aa0", "blank": 0}}, "characters must be distinct"),
        ({**SETTINGS, "charset": {"characters": 5, "blank": 0}}, "characters must be a str"),
        ({**SETTINGS, "preprocessing": 7}, "Preprocessing must be a mapping, got int"),
    ],
    ids=lambda value: f"{value!s:.20}",
)
def test_load_rejects_settings(path, state, written, message):
    write(path, state, written)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "conv5.bias"), "1 tensors are missing; the first is 'conv5.bias'"),
        (lambda state: {**state, "more": torch.zeros(1)}, "1 tensors are unknown; the first is 'more'"),
        (
            lambda state: {**state, "conv5.bias": torch.zeros(65)},
            r"conv5.bias must be .*\(64,\), got .*\(65,\)",
        ),
        (
            lambda state: {**state, "conv5.bias": torch.zeros(64, dtype=torch.int32)},
            "conv5.bias must be torch.float32 .*, got torch.int32",
        ),
        (
            lambda state: {**state, "bn5.running_mean": torch.full((64,), float("nan"))},
            "bn5.running_mean must be finite",
        ),
        (
            lambda state: {**state, "bn5.running_var": torch.full((64,), float("inf"))},
            "bn5.running_var must be finite",
        ),
    ],
)
def test_load_rejects_tensors(path, state, change, message):
    write(path, change(state), SETTINGS)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_load_rejects_other_files(path, state):
    intact = save(state, {"crnn_ext": json.dumps(SETTINGS)})
    (length,) = struct.unpack_from("<Q", intact)
    for content in (
        b"",
        b"{}",
        intact[:7],
        intact[: 8 + length // 2],
        intact[:-1],
        intact + b"\0",
        struct.pack("<Q", 2**63) + intact[8:],
        struct.pack("<Q", 10**8 - 1) + b"{}",
        struct.pack("<Q", 10**5) + b"[" * 10**5,
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a valid safetensors file") as caught:
            load_checkpoint(path)
        assert str(caught.value).startswith(f"{path}: ")
    path.write_bytes(save(state, {"crnn_ext_training": "{}"}))
    with pytest.raises(CheckpointError, match="this is the state of a training run; the checkpoint is in"):
        load_checkpoint(path)
    path.write_bytes(save(state, {"format": "pt"}))
    with pytest.raises(CheckpointError, match=r"not a crnn_ext checkpoint: the metadata .* has no entry"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="missing: No such file or directory"):
        load_checkpoint(path.parent / "missing")
    message = "is a folder; the checkpoint in the folder of a training run is best"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path.parent)


@pytest.mark.parametrize(
    ("dump", "load"),
    [
        (
            lambda value, path: path.write_bytes(pickle.dumps(value)),
            lambda path: pickle.loads(path.read_bytes()),
        ),
        (torch.save, lambda path: torch.load(path, weights_only=False)),
        (
            lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
            lambda path: torch.load(path, weights_only=False),
        ),
    ],
    ids=["pickle", "torch", "legacy torch"],
)
def test_load_rejects_pickles(tmp_path, dump, load):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    dump({"weights": MaliciousPickle(trace)}, path)
    with pytest.raises(CheckpointError, match="pickles could run code and are not loaded"):
        load_checkpoint(path)
    assert not trace.exists()
    load(path)
    assert trace.exists(), "the pickle must run code when loaded unsafely"


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor outside the meta device."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            self.size = max(self.size, result.nbytes)
        return result


def test_load_allocates_no_more_than_file_size(path, state):
    write(path, state, SETTINGS)
    with LargestTensor() as seen:
        load_checkpoint(path)
    largest = seen.size
    assert 0 < largest < path.stat().st_size
    write(path, state, with_architecture(nh=2000, width=8))
    with LargestTensor() as seen, pytest.raises(CheckpointError, match=r"bn3\.bias must be"):
        load_checkpoint(path)
    assert seen.size <= largest


@given(data=st.data())
def test_load_fuzzed_file(state, tmp_path_factory, data):
    intact = save(state, {"crnn_ext": json.dumps(SETTINGS)})
    (length,) = struct.unpack_from("<Q", intact)
    damaged = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly in the header, although the weights are most of the file.
        places = st.integers(0, 8 + length - 2) | st.integers(0, len(damaged) - 1)
        damaged[data.draw(places)] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, 8 + length) | st.integers(0, len(intact))) :]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    with contextlib.suppress(CheckpointError), warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        load_checkpoint(path)
