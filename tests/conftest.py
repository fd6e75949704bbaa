"""Fixtures for all tests."""

import os

import pytest
import torch

from crnn_ext._load import library_path


def missing_for_cuda():
    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    if library_path("_C_cuda") is None:
        return "crnn_ext was built without CUDA"
    return None


@pytest.fixture(scope="session", params=["cpu", "cuda"])
def device(request):
    """Each device that the operators run on; CRNN_REQUIRE_CUDA=1 makes a missing GPU a failure."""
    missing = missing_for_cuda() if request.param == "cuda" else None
    if missing is not None:
        stop = pytest.fail if os.environ.get("CRNN_REQUIRE_CUDA") == "1" else pytest.skip
        stop(missing)
    return torch.device(request.param)
