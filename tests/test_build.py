"""setup.py: its errors and compiler flags; the built libraries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

from crnn_ext._load import library_path


def setup_error(**environment):
    """The last line that a failing `setup.py --version` prints."""
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_setup_cuda_without_nvcc(tmp_path):
    message = setup_error(CRNN_EXT_CUDA="1", CUDA_HOME=str(tmp_path))
    assert message == (
        "CRNN_EXT_CUDA=1 requires a CUDA toolkit (nvcc and libcudart_static.a), but none was found "
        f"in CUDA_HOME={tmp_path}: install one, or set CUDA_HOME to its folder"
    )


def test_setup_invalid_crnn_ext_cuda():
    assert setup_error(CRNN_EXT_CUDA="2") == "CRNN_EXT_CUDA must be 0, 1 or unset, got '2'"


def test_setup_without_compiler():
    message = setup_error(CXX="/nonexistent/c++")
    assert message == "crnn_ext needs a C++17 compiler, but '/nonexistent/c++' was not found: install g++"


COMPILE = """
import runpy, sys, setuptools, torch
from setuptools.command.build_ext import build_ext

torch.version.cuda = sys.argv[1]
arguments = {}
setuptools.setup = lambda **given: arguments.update(given)
runpy.run_path("setup.py", run_name="__main__")
# Prints the flags instead of compiling.
build_ext.build_extensions = lambda self: print(self.extensions[-1].extra_compile_args["nvcc"])
command = arguments["cmdclass"]["build_ext"](setuptools.Distribution(arguments))
command.ensure_finalized()
command.run()
"""


def toolkit(folder, version, architectures):
    """The parts of a CUDA toolkit that setup.py uses."""
    (folder / "bin").mkdir()
    (folder / "lib64").mkdir()
    (folder / "lib64" / "libcudart_static.a").touch()
    nvcc = folder / "bin" / "nvcc"
    listed = " ".join(f"compute_{number}" for number in architectures)
    release = f"Cuda compilation tools, release {version}, V{version}.85"
    nvcc.write_text(f'#!/bin/sh\ncase $1 in --list-gpu-arch) echo {listed};; *) echo "{release}";; esac\n')
    nvcc.chmod(0o755)
    return folder


def build_output(home, cuda_of_torch, **environment):
    """The output lines of a build with this toolkit and a torch for that CUDA, nvcc flags last."""
    environment = {**os.environ, "CUDA_HOME": str(home), "TORCH_CUDA_ARCH_LIST": "", **environment}
    environment.pop("CRNN_EXT_CUDA", None)
    command = [sys.executable, "-c", COMPILE, cuda_of_torch]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("nvcc", "cuda_of_torch"), [("12.6", "13.0"), ("13.0", "12.6")])
def test_setup_nvcc_version_differs_from_torch(tmp_path, nvcc, cuda_of_torch):
    """Isolated builds of pip use the newest torch, whatever toolkit is installed."""
    output = build_output(toolkit(tmp_path, nvcc, [80]), cuda_of_torch)
    assert f"CUDA kernels by nvcc {nvcc}" in output[-2]
    assert f"for CUDA {cuda_of_torch}" in output[-2]


@pytest.mark.parametrize(
    ("nvcc", "known", "expected"),
    [
        ("12.6", [50, 75, 80, 86, 89, 90], "compute_75,code=[sm_75,sm_80,sm_86,sm_89,sm_90,compute_75]"),
        (
            "14.0",
            [80, 86, 89, 90, 100, 110, 120],
            "compute_80,code=[sm_80,sm_86,sm_89,sm_90,sm_100,sm_120,compute_80]",
        ),
    ],
)
def test_setup_default_architectures(tmp_path, nvcc, known, expected):
    flags = build_output(toolkit(tmp_path, nvcc, known), "13.0")[-1]
    assert f"'-gencode=arch={expected}'" in flags
    assert ("--compress-mode=size" in flags) == (nvcc == "14.0")


def test_setup_torch_cuda_arch_list(tmp_path):
    flags = build_output(toolkit(tmp_path, "13.0", [75, 90]), "13.0", TORCH_CUDA_ARCH_LIST="9.0")[-1]
    assert "-gencode" not in flags


def path_of_library(name):
    path = library_path(name)
    if path is None:
        pytest.skip(f"{name} was not built (CRNN_EXT_CUDA=1 builds the CUDA library wherever nvcc is)")
    return path


@pytest.mark.parametrize("name", ["_C", "_C_cuda"])
def test_library_uses_only_stable_abi_of_torch_2_10(name):
    path = path_of_library(name)
    audit = Path(sys.executable).with_name("torch-abi-audit")
    if not audit.exists():
        pytest.skip("torch-abi-audit is not installed")
    done = subprocess.run([audit, "--json", path], capture_output=True, text=True, check=True)
    (library,) = json.loads(done.stdout)["bundled_libs"]
    assert library["torch"]["unstable_symbols"] == []
    assert library["torch"]["unknown_shim_symbols"] == []
    assert library["torch"]["min_torch_version"] == "2.10.0"


def test_cuda_library_loads_without_torch_cuda():
    """Without CUDA in torch, the package does not load the library; a separate process loads it by hand."""
    script = """
import sys, torch, crnn_ext.ops
torch.ops.load_library(sys.argv[1])
names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("crnn_ext::")]
on_cuda = {name for name in names if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")}
# All but the checks, which read CPU memory.
assert on_cuda == {name for name in names if not name.endswith("_check")}, on_cuda
assert "crnn_ext::ctc_loss_backward" in on_cuda
"""
    command = [sys.executable, "-c", script, path_of_library("_C_cuda")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
