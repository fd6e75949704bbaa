"""The sources of the CUDA operators synchronize with the GPU only where validate=True requires it."""

import re

import pytest
from helpers.paths import ROOT

SOURCES = ROOT / "csrc"

# CUDA runtime calls that synchronize, copies to the host, and torch calls that do either.
SYNCHRONIZES = re.compile(
    r"cuda\w*Synchronize|cudaMemcpy\w*|cudaMemset\b|cudaFree\w*|cudaMalloc\w*|cudaHost\w+|DeviceToHost"
    r"|cudaStreamQuery|cudaEventQuery|torch::stable::(?:to|copy_|clone|sum)\b|\bto_cpu\b|\bitem\s*[<(]"
    r"|launchCooperative|cudaGraph\w*"
)
# The one place that may synchronize, and the function that it calls.
ALLOWED = re.compile(
    r"  if \(validate\) \{.*?\n  \}|^inline Tensor to_cpu\(.*?\n\}", re.DOTALL | re.MULTILINE
)
COMMENT = re.compile(r"//[^\n]*")


def synchronizing_calls(source):
    return SYNCHRONIZES.findall(COMMENT.sub("", ALLOWED.sub("", source)))


def cuda_sources():
    """The .cu files of all operators, and the headers that they include."""
    found, pending = set(), list(SOURCES.glob("*/*.cu"))
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        pending += [SOURCES / name for name in re.findall(r'#include "([^"]+)"', path.read_text())]
    return sorted(found)


def test_synchronization_scan_finds_sources():
    names = {str(path.relative_to(SOURCES)) for path in cuda_sources()}
    operators = {"ctc_loss/cuda.cu", "greedy/cuda.cu", "beam_search/cuda.cu"}
    assert operators | {"forward_backward/recursion.cuh", "beam_search/search.cuh", "common/gpu.h"} <= names


@pytest.mark.parametrize("path", cuda_sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_cuda_source_does_not_synchronize(path):
    assert synchronizing_calls(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("cudaStreamSynchronize(stream);", ["cudaStreamSynchronize"]),
        (
            "cudaMemcpyAsync(a, b, n, cudaMemcpyDeviceToHost, s);",
            ["cudaMemcpyAsync", "cudaMemcpyDeviceToHost"],
        ),
        ("x = torch::stable::to(lengths, cpu);", ["torch::stable::to"]),
        ("  if (with_grad) {\n    to_cpu(targets);\n  }\n", ["to_cpu"]),
        ("  if (validate) {\n    to_cpu(targets);\n  }\n", []),
        ("// cudaDeviceSynchronize would wait\n", []),
    ],
)
def test_synchronization_scan_patterns(source, found):
    assert synchronizing_calls(source) == found
