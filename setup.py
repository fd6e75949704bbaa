"""Builds the three native modules of crnn_ext.

_C        operator schemas and CPU kernels; LibTorch stable ABI, so one library serves torch 2.10 and later
_C_cuda   CUDA kernels, when nvcc is there and torch is a CUDA build (CRNN_EXT_CUDA=0/1 decides otherwise)
_text     pybind11 module without any torch header
"""

import os
import shutil
import subprocess
import sysconfig
from glob import glob
from pathlib import Path

import pybind11
import torch
from setuptools import Extension, setup
from torch.utils import cpp_extension

# The oldest torch whose stable ABI the libraries use: major, minor, patch in the three top bytes.
TORCH_TARGET_VERSION = "-DTORCH_TARGET_VERSION=0x020a000000000000"
SOURCE_ROOT = str(Path(__file__).resolve().parent / "csrc")
CUDA_ARCHITECTURES = ["8.0", "8.6", "8.9", "9.0", "10.0"]


def require_toolchain() -> None:
    """Names the Debian package of a missing compiler or header instead of failing deep inside a build."""
    compiler = (os.environ.get("CXX") or "c++").split()[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"crnn_ext needs a C++17 compiler, and {compiler!r} is not there: install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SystemExit("crnn_ext needs Python.h, and it is not there: install python3-dev")


def find_cuda_home() -> str | None:
    """The folder of a CUDA toolkit. One on PATH comes first, unless its nvcc only calls another."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc")
    on_path = [Path(nvcc).resolve().parent.parent] if nvcc else []
    for root in [Path(home)] if home else [*on_path, Path("/usr/local/cuda")]:
        runtimes = (root / folder / "libcudart_static.a" for folder in ("lib64", "lib"))
        if (root / "bin" / "nvcc").is_file() and any(map(Path.is_file, runtimes)):
            return str(root.resolve())
    return None


def wants_cuda(cuda_home: str | None) -> bool:
    choice = os.environ.get("CRNN_EXT_CUDA", "")
    if choice not in ("", "0", "1"):
        raise SystemExit(f"CRNN_EXT_CUDA must be 0, 1 or unset, and it is {choice!r}")
    if choice == "1" and cuda_home is None:
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        place = f"in CUDA_HOME={home}" if home else "on PATH or in /usr/local/cuda"
        raise SystemExit(
            "CRNN_EXT_CUDA=1 asks for the CUDA kernels, and no CUDA toolkit (nvcc and libcudart_static.a) is "
            f"{place}: install one, or set CUDA_HOME to its folder"
        )
    return choice == "1" or (choice == "" and cuda_home is not None and torch.version.cuda is not None)


def cuda_architectures(cuda_home: str) -> str:
    """The default list without what this nvcc does not know; later GPUs compile the PTX of its last entry."""
    nvcc = [f"{cuda_home}/bin/nvcc", "--list-gpu-arch"]
    known = subprocess.run(nvcc, check=True, capture_output=True, text=True).stdout.split()
    return ";".join(a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}" in known) + "+PTX"


class BuildExtension(cpp_extension.BuildExtension):
    """torch's, which also compiles .cu files beside a CPU build of torch."""

    def build_extensions(self) -> None:
        if torch.version.cuda is None:
            # There is no version to match, and the headers of a .cu file are not tracked.
            cpp_extension._check_cuda_version = lambda *_: None
            for stale in Path(self.build_temp).rglob("cuda.o"):
                stale.unlink()
        cpp_extension.CUDA_HOME = find_cuda_home()
        super().build_extensions()


def torch_library(name: str, sources: list[str], link_args: list[str], **options) -> Extension:
    """A shared library for torch.ops.load_library: it links libtorch and knows nothing of Python."""
    # libtorch_cuda, which holds the current stream, is reached through libtorch, although nothing in libtorch
    # itself is used: a linker that drops such libraries must not.
    torch_libraries = ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
    return Extension(
        f"crnn_ext.{name}",
        sources=sorted(sources),
        include_dirs=[SOURCE_ROOT, *cpp_extension.include_paths()],
        library_dirs=cpp_extension.library_paths(),
        extra_link_args=[*torch_libraries, *link_args],
        language="c++",
        **options,
    )


def extensions() -> list[Extension]:
    cxx_flags = [
        "-O3",
        "-std=c++17",
        "-fno-trapping-math",
        "-fno-math-errno",
        "-fwrapv",
        "-fvisibility=hidden",
        "-Wall",
        "-Wno-psabi",
    ]
    operators = [path for path in glob("csrc/*/*.cpp") if not path.startswith("csrc/text/")]
    modules = [
        torch_library("_C", operators, [], extra_compile_args={"cxx": [*cxx_flags, TORCH_TARGET_VERSION]}),
        Extension(
            "crnn_ext._text",
            sorted(glob("csrc/text/*.cpp")),
            include_dirs=[SOURCE_ROOT, pybind11.get_include()],
            extra_compile_args={"cxx": cxx_flags},
            language="c++",
        ),
    ]
    cuda_home = find_cuda_home()
    if wants_cuda(cuda_home):
        architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or cuda_architectures(cuda_home)
        os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
        host_flags = [f"-Xcompiler={flag}" for flag in ("-fvisibility=hidden", "-Wall", "-Wno-psabi")]
        nvcc_flags = ["-O3", "-std=c++17", *host_flags, TORCH_TARGET_VERSION, "-DUSE_CUDA"]
        folders = [f"-L{cuda_home}/lib64", f"-L{cuda_home}/lib"]
        cuda_runtime = [*folders, "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
        modules.append(
            torch_library(
                "_C_cuda", glob("csrc/*/cuda.cu"), cuda_runtime, extra_compile_args={"nvcc": nvcc_flags}
            )
        )
    return modules


require_toolchain()
setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtension})
