"""The kernels compiled for narrower instruction sets: runs their tests again in other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.operator_calls import OPERATORS

TESTS = [*(f"test_{operator}.py" for operator in OPERATORS), "test_beam_search_pruning.py"]


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_kernels_on_instruction_set(capability):
    # CUDA kernels do not depend on the instruction set.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not cuda", *TESTS]
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "CRNN_REQUIRE_CUDA": "0"}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
