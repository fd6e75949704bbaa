"""The kernels compiled for narrower instruction sets: runs their tests again in other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.operator_calls import OPERATORS

# A default run tests three operators, an exhaustive one all with more examples.
SOME = ["test_ctc_loss.py", "test_greedy.py", "test_align.py"]
ALL = [*(f"test_{operator}.py" for operator in OPERATORS), "test_beam_search_pruning.py"]


@pytest.mark.parametrize("capability", ["default", "avx2"])
@pytest.mark.parametrize(
    ("marks", "tests"),
    [("not exhaustive", SOME), pytest.param("", ALL, marks=pytest.mark.exhaustive)],
    ids=["some", "all"],
)
def test_kernels_on_instruction_set(capability, marks, tests):
    # CUDA kernels do not depend on the instruction set.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        marks,
        "-k",
        "not cuda",
        *tests,
    ]
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "CRNN_REQUIRE_CUDA": "0"}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
