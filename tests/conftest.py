"""Fixtures for all tests."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_host import operators
from helpers.devices import device_of

from crnn_ext._load import library_path


def skip_reason(device):
    if device == "cuda_on_host":
        return operators.unavailable_reason()
    if device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    if device == "cuda" and library_path("_C_cuda") is None:
        return "crnn_ext was built without CUDA"
    return None


@pytest.fixture(scope="session", params=["cpu", "cuda_on_host", "cuda"])
def device(request):
    """Each device that the operators run on; CRNN_REQUIRE_CUDA=1 makes a missing GPU a failure.

    On cuda_on_host, CPU tensors go through the CUDA kernels.
    """
    missing = skip_reason(request.param)
    if missing is not None:
        required = request.param == "cuda" and os.environ.get("CRNN_REQUIRE_CUDA") == "1"
        stop = pytest.fail if required else pytest.skip
        stop(missing)
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
