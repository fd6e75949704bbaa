"""Every operator is complete: files, kernels, fake kernels and documentation."""

import pytest
import torch
from cuda_on_host import operators
from helpers.devices import device_of
from helpers.operator_calls import CALLS, OPERATORS
from helpers.paths import ROOT

from crnn_ext import ctc

# Operators that end in _check read values in CPU memory: they have neither CUDA kernels nor fake kernels.
NAMES = [
    name
    for name in sorted(torch._C._dispatch_get_all_op_names())
    if name.startswith("crnn_ext::") and not name.endswith("_check")
]
DISPATCH_KEYS = {"cpu": "CPU", "cuda_on_host": operators.KEY.name, "cuda": "CUDA"}


@pytest.mark.parametrize(
    "role",
    [
        "csrc/{0}/{0}.cpp",
        "csrc/{0}/cpu.cpp",
        "csrc/{0}/cuda.cu",
        "tests/ctc/test_{0}.py",
        "tests/cuda_on_host/drivers/{0}.cu",
    ],
)
@pytest.mark.parametrize("operator", OPERATORS)
def test_file_exists(operator, role):
    assert (ROOT / role.format(operator)).is_file()


def test_every_operator_has_a_call():
    assert sorted(CALLS) == OPERATORS


@pytest.mark.parametrize("name", NAMES)
def test_kernel_is_registered(request, device, name):
    key = DISPATCH_KEYS[device_of(request.node)]
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


@pytest.mark.parametrize("name", NAMES)
def test_fake_kernel_is_registered(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta")


@pytest.mark.parametrize("name", ctc.__all__)
def test_export_is_documented(name):
    page = (ROOT / "docs" / "reference" / "ctc.md").read_text().splitlines()
    assert f"::: {getattr(ctc, name).__module__}.{name}" in page
