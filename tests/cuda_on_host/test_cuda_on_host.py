"""CUDA kernels on a CPU: drivers in four builds, planted faults; see docs/explanation/testing-kernels.md."""

import os
import re
import subprocess

import pytest
import torch

from crnn_ext.ctc import greedy_decode
from cuda_on_host import build, operators

FAULTS = build.HERE / "drivers" / f"{build.FAULTS}.cu"


@pytest.fixture(scope="session", autouse=True)
def _built(request):
    if missing := build.unavailable_reason():
        pytest.skip(missing)
    exhaustive = any(item.get_closest_marker("exhaustive") for item in request.session.items)
    build.build(*([] if exhaustive else build.default_targets()))


def run_driver(variant, name, *cases, seed=1):
    options = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    environment = os.environ | options | {"CUDA_ON_HOST_SEED": str(seed)}
    return subprocess.run(
        [build.driver_path(variant, name), *cases],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def mark_of(variant, name):
    """The mark of a driver that `make test` does not build."""
    return [] if build.driver_path(variant, name) in build.default_targets() else pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(name, variant, marks=mark_of(variant, name))
        for name in build.DRIVERS
        if name != FAULTS.stem
        for variant in build.VARIANTS
    ],
)
def test_driver(name, variant):
    done = run_driver(variant, name)
    assert done.returncode == 0, done.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", [name for name in build.DRIVERS if name != FAULTS.stem])
def test_driver_with_other_rounding_errors(name, seed):
    done = run_driver("rounding", name, seed=seed)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", build.VARIANTS)
def test_kernels_without_a_fault(variant):
    """The correct versions of the kernels with planted faults."""
    done = run_driver(variant, FAULTS.stem, "sum_rows", "rotate", "count_values", "reverse", "add_squares")
    assert done.returncode == 0, done.stdout


BARRIER, SYNCWARP = "__syncthreads();", "__syncwarp"


@pytest.mark.parametrize(
    ("variant", "case", "message", "lines"),
    [
        ("plain", "sum_rows without a barrier", "expected", []),
        ("race", "sum_rows without a barrier", "data race", ["parts[warp] =", "+= parts[i]"]),
        ("plain", "sum_rows reuses its buffer a barrier early", "expected", []),
        ("race", "sum_rows reuses its buffer a barrier early", "data race", ["parts[warp] =", "+= parts[i]"]),
        ("plain", "sum_rows with a barrier in both branches", "divergent barrier", [BARRIER]),
        ("plain", "sum_rows with a warp that skips a barrier", "divergent barrier", [BARRIER]),
        ("plain", "sum_rows with a warp that returns before a barrier", "deadlock in block 0", [BARRIER]),
        ("race", "sum_rows reads unwritten shared memory", "uninitialized memory", ["+= parts[i]"]),
        ("asan", "sum_rows writes past a shared variable", "index 4 out of bounds", ["parts[blockDim.x"]),
        ("plain", "rotate without __syncwarp", "expected", []),
        ("race", "rotate without __syncwarp", "data race", ["held[lane] =", "= held["]),
        ("plain", "rotate with a mask without its own lane", "without its own lane 16", [SYNCWARP]),
        ("plain", "rotate with masks that differ", "mismatched warp call", [SYNCWARP]),
        ("plain", "rotate with a lane that has returned", "deadlock in block 0", [SYNCWARP]),
        (
            "race",
            "count_values adds to shared memory without atomicAdd",
            "data race",
            ["of_block[value] += 1"],
        ),
        ("race", "count_values adds to global memory without atomicAdd", "data race", ["counts[own] +="]),
        (
            "asan",
            "count_values writes past dynamic shared memory",
            "use-after-poison",
            ["of_block[own] = 0"],
        ),
        ("asan", "reverse reads past global memory", "heap-buffer-overflow", ["= in[kFault"]),
        ("asan", "reverse writes past global memory", "heap-buffer-overflow", ["out[kFault"]),
        ("asan", "reverse reads at a misaligned address", "misaligned address", ["in + 1"]),
        ("race", "reverse reads unwritten global memory", "uninitialized memory", ["= in[kFault"]),
        ("plain", "reverse skips an element", r"out\[40\] is nan", []),
        ("race", "reverse skips an element", "uninitialized memory: byte 160", []),
        ("rounding", "add_squares with swapped operands", r"differences\[\d+\] is -?\d.*e-", []),
    ],
)
def test_planted_fault(variant, case, message, lines):
    """The build reports the fault, with the source lines that contain `lines`."""
    output = run_driver(variant, FAULTS.stem, case).stdout
    assert "FAILED" in output or "ERROR: AddressSanitizer" in output or "runtime error" in output
    assert re.search(message, output), output
    source = FAULTS.read_text().splitlines()
    numbers = re.findall(rf"{FAULTS.name}:(\d+)", output)
    reported = [source[int(number) - 1] for number in numbers]
    for line in lines:
        assert any(line in other for other in reported), output


def test_every_schedule_finds_a_race():
    output = run_driver("race", FAULTS.stem, "rotate without __syncwarp").stdout
    assert output.count("data race") == output.count("FAILED") == 5, output


@pytest.mark.parametrize("variant", build.VARIANTS)
@pytest.mark.parametrize(
    "fault", ["sum_rows with a warp that returns before a barrier", "rotate with masks that differ"]
)
def test_kernels_run_after_a_fault(fault, variant):
    """A later kernel runs in the same process, and the abandoned threads leak nothing."""
    output = run_driver(variant, FAULTS.stem, fault, "reverse").stdout
    assert output.count(f"FAILED {fault}") == output.count("FAILED") == 5, output
    assert "LeakSanitizer" not in output


def lengths_beyond_the_frames():
    return greedy_decode(torch.zeros(4, 1, 3), torch.tensor([5])).scores


@pytest.mark.parametrize("device", ["cuda_on_host"], indirect=True)
def test_operators_run_the_cuda_kernels(device):
    """Unlike CPU kernels, CUDA kernels do not check lengths before they start."""
    assert lengths_beyond_the_frames().isnan().all()


def test_operators_return_to_the_cpu_kernels():
    operators.load()
    with operators.override_cpu_kernels():
        assert lengths_beyond_the_frames().isnan().all()
    with pytest.raises(ValueError, match="input_lengths"):
        lengths_beyond_the_frames()
