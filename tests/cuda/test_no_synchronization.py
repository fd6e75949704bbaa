"""The sources of the CUDA operators hold nothing that waits for a GPU but what validate=True asks for."""

import re

import pytest
from helpers.paths import ROOT

SOURCES = ROOT / "csrc"

# Calls of the CUDA runtime that wait, copies to the host, and torch's ways to either.
WAITS = re.compile(
    r"cuda\w*Synchronize|cudaMemcpy\w*|cudaMemset\b|cudaFree\w*|cudaMalloc\w*|cudaHost\w+|DeviceToHost"
    r"|cudaStreamQuery|cudaEventQuery|torch::stable::(?:to|copy_|clone|sum)\b|\bto_cpu\b|\bitem\s*[<(]"
    r"|launchCooperative|cudaGraph\w*"
)
# The one place that may, and the function that it calls.
ALLOWED = re.compile(
    r"  if \(validate\) \{.*?\n  \}|^inline Tensor to_cpu\(.*?\n\}", re.DOTALL | re.MULTILINE
)
COMMENT = re.compile(r"//[^\n]*")


def what_waits(source):
    return WAITS.findall(COMMENT.sub("", ALLOWED.sub("", source)))


def cuda_sources():
    """The .cu files of all operators and the headers that they include."""
    found, todo = set(), list(SOURCES.glob("*/*.cu"))
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        todo += [SOURCES / name for name in re.findall(r'#include "([^"]+)"', path.read_text())]
    return sorted(found)


def test_the_sources_are_found():
    names = {str(path.relative_to(SOURCES)) for path in cuda_sources()}
    operators = {"ctc_loss/cuda.cu", "greedy/cuda.cu", "beam_search/cuda.cu"}
    assert operators | {"forward_backward/recursion.cuh", "beam_search/search.cuh", "common/gpu.h"} <= names


@pytest.mark.parametrize("path", cuda_sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_nothing_waits(path):
    assert what_waits(path.read_text()) == []


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
def test_the_scan_sees(source, found):
    assert what_waits(source) == found
