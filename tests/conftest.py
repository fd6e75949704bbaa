"""Fixtures for all tests, the tests that a run leaves out, and how long it fuzzes."""

import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_host import operators
from helpers.devices import device_of
from hypothesis import settings

from crnn_ext._load import library_path

DEVICES = ["cpu", "cuda_on_host", "cuda"]
# Tests left out for each missing device.
DESELECTED = pytest.StashKey[Counter[str]]()

settings.register_profile("default", deadline=None, max_examples=30)
settings.register_profile("exhaustive", deadline=None, max_examples=200)


def unavailable_reason(device):
    """Why this machine cannot run tests of the device; None if it can."""
    if device == "cuda_on_host":
        return operators.unavailable_reason()
    if device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    if device == "cuda" and library_path("_C_cuda") is None:
        return "crnn_ext was built without CUDA"
    return None


def is_exhaustive(config):
    return config.option.markexpr != "not exhaustive"


def pytest_configure(config):
    # A run on a GPU has a time limit: all tests, with fewer examples.
    fuzz_long = is_exhaustive(config) and os.environ.get("CRNN_REQUIRE_CUDA") != "1"
    settings.load_profile("exhaustive" if fuzz_long else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Deselects tests of missing devices; an exhaustive run repeats the property tests with more examples."""
    if is_exhaustive(config):
        for item in items:
            if getattr(item.obj, "is_hypothesis_test", False):
                item.add_marker(pytest.mark.exhaustive)
    available = {device for device in DEVICES if unavailable_reason(device) is None}
    if os.environ.get("CRNN_REQUIRE_CUDA") == "1":
        available.add("cuda")
    missing = {item for item in items if device_of(item) in {*DEVICES} - available}
    items[:] = [item for item in items if item not in missing]
    config.hook.pytest_deselected(items=[*missing])
    config.stash[DESELECTED] = Counter(map(device_of, missing))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = dict(session.config.stash.get(DESELECTED, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Takes the counts from a worker of pytest-xdist; each of them collects all tests."""
    if hasattr(node, "workeroutput"):
        node.config.stash[DESELECTED] = Counter(node.workeroutput.get("deselected", {}))


def pytest_terminal_summary(terminalreporter, config):
    for device, count in config.stash.get(DESELECTED, {}).items():
        terminalreporter.write_line(
            f"{count} tests for {device} deselected: {unavailable_reason(device)}", yellow=True
        )


@pytest.fixture(scope="session", params=DEVICES)
def device(request):
    """Each device that the operators run on; CRNN_REQUIRE_CUDA=1 makes a missing GPU a failure.

    On cuda_on_host, CPU tensors go through the CUDA kernels.
    """
    if missing := unavailable_reason(request.param):
        pytest.fail(missing)
    if request.param == "cuda_on_host":
        operators.load()
        return torch.device("cpu")
    return torch.device(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Hides GPUs from all tests but those on `cuda`, from their fixtures and from processes that they start.

    Commands would take a GPU by default, whose last bits are not those of the CPU.
    """
    with pytest.MonkeyPatch.context() as patch:
        if device_of(item) != "cuda":
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setattr(torch.cuda, "device_count", lambda: 0)
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return (yield)


@pytest.fixture(autouse=True)
def _cuda_on_host(request):
    """The kernels behind the operators, for the time of a test on the device of that name.

    They cannot be the session's, as `device` is: other tests run between those that use it.
    """
    if device_of(request.node) == "cuda_on_host":
        request.getfixturevalue("device")
        with operators.override_cpu_kernels():
            yield
    else:
        yield


@pytest.fixture
def write_file(tmp_path):
    """Writes a str or bytes to a new file, and returns its path."""
    numbers = itertools.count()

    def write(content):
        path = tmp_path / str(next(numbers))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The path of a checkpoint of a random network."""
    from helpers.random_checkpoint import random_checkpoint

    from crnn_ext.ocr import save_checkpoint

    path = tmp_path_factory.mktemp("network") / "model.safetensors"
    save_checkpoint(path, random_checkpoint())
    return str(path)


@pytest.fixture(scope="module")
def images(checkpoint):
    """The paths of six images of noise, in which it reads something."""
    from PIL import Image

    noise = np.random.default_rng(0)
    sizes = [(40, 32), (64, 32), (33, 17), (1, 90), (200, 12), (64, 32)]
    paths = [f"{Path(checkpoint).parent}/{index}.{'jpg' if index % 2 else 'png'}" for index in range(6)]
    for path, (width, height) in zip(paths, sizes, strict=True):
        Image.fromarray(noise.integers(0, 256, (height, width), np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def readings(checkpoint, images):
    """What it reads in them."""
    from crnn_ext.ocr import Recognizer

    return Recognizer.load(checkpoint)(images)
