"""Builds the three native modules of crnn_ext.

_C        operator schemas and CPU kernels; LibTorch stable ABI, so one library serves torch 2.10 and later
_C_cuda   CUDA kernels, when nvcc is there and torch is a CUDA build (CRNN_EXT_CUDA=0/1 decides otherwise)
_text     pybind11 module without any torch header
"""

import os
import shutil
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
CUDA_ARCHITECTURES = "8.0;8.6;8.9;9.0;10.0+PTX"


def require_toolchain() -> None:
    """Names the Debian package of a missing compiler or header instead of failing deep inside a build."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"crnn_ext needs a C++17 compiler, and {compiler!r} is not there: install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SystemExit("crnn_ext needs Python.h, and it is not there: install python3-dev")


def find_cuda_home() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [home] if home else ["/usr/local/cuda", shutil.which("nvcc")]
    for candidate in filter(None, candidates):
        root = Path(candidate).resolve()
        root = root.parent.parent if root.name == "nvcc" else root
        if (root / "bin" / "nvcc").is_file():
            return str(root)
    return None


def wants_cuda(cuda_home: str | None) -> bool:
    choice = os.environ.get("CRNN_EXT_CUDA", "")
    if choice not in ("", "0", "1"):
        raise SystemExit(f"CRNN_EXT_CUDA must be 0, 1 or unset, and it is {choice!r}")
    if choice == "1" and cuda_home is None:
        raise SystemExit(
            "CRNN_EXT_CUDA=1 asks for the CUDA kernels, but nvcc was found neither in CUDA_HOME, "
            "nor in /usr/local/cuda, nor on PATH: install the CUDA toolkit or set CUDA_HOME"
        )
    return choice == "1" or (choice == "" and cuda_home is not None and torch.version.cuda is not None)


class BuildExtension(cpp_extension.BuildExtension):
    """torch's, which also compiles .cu files beside a CPU build of torch (there is no version to match then)."""

    def build_extensions(self) -> None:
        if torch.version.cuda is None:
            cpp_extension._check_cuda_version = lambda *_: None
        cpp_extension.CUDA_HOME = find_cuda_home()
        super().build_extensions()


def torch_library(name: str, sources: list[str], **options) -> Extension:
    """A shared library for torch.ops.load_library: it links libtorch and knows nothing of Python."""
    return Extension(
        f"crnn_ext.{name}",
        sources=sorted(sources),
        include_dirs=[SOURCE_ROOT, *cpp_extension.include_paths()],
        library_dirs=[*cpp_extension.library_paths(), *options.pop("library_dirs", [])],
        libraries=["torch", "torch_cpu", "c10", *options.pop("libraries", [])],
        language="c++",
        **options,
    )


def extensions() -> list[Extension]:
    cxx_flags = [
        "-O3",
        "-std=c++17",
        "-fno-trapping-math",
        "-fno-math-errno",
        "-fopenmp-simd",
        "-fvisibility=hidden",
        "-Wall",
        "-Wno-psabi",
    ]
    operators = [path for path in glob("csrc/*/*.cpp") if not path.startswith("csrc/text/")]
    modules = [
        torch_library("_C", operators, extra_compile_args={"cxx": [*cxx_flags, TORCH_TARGET_VERSION]}),
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
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES)
        defines = [TORCH_TARGET_VERSION, "-DUSE_CUDA"]
        modules.append(
            torch_library(
                "_C_cuda",
                glob("csrc/*/cuda.cu"),
                library_dirs=[f"{cuda_home}/lib64"],
                libraries=["cudart_static", "rt", "pthread", "dl"],
                extra_compile_args={"cxx": [*cxx_flags, *defines], "nvcc": ["-O3", "-std=c++17", *defines]},
                # libtorch_cuda, which holds the current stream, is reached through libtorch alone.
                extra_link_args=["-Wl,--no-as-needed"],
            )
        )
    return modules


require_toolchain()
setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtension})
