"""Builds the three native modules of crnn_ext.

_C        operator schemas and CPU kernels; LibTorch stable ABI, so one library serves torch 2.10 and later
_C_cuda   CUDA kernels; built if nvcc is found and torch is a CUDA build (override: CRNN_EXT_CUDA=0 or 1)
_text     pybind11 module; uses no torch header
"""

import os
import re
import shutil
import subprocess
import sysconfig
from glob import glob
from pathlib import Path

import pybind11
import torch
from setuptools import Extension, setup
from torch.utils import cpp_extension

# Default compute capabilities, if TORCH_CUDA_ARCH_LIST is not set. Other GPUs of a generation run the machine
# code of the next lower capability; later generations compile the PTX.
CUDA_ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
# The oldest torch whose stable ABI the libraries target: major, minor, patch in the three top bytes.
TORCH_TARGET_VERSION = "-DTORCH_TARGET_VERSION=0x020a000000000000"
SOURCE_ROOT = str(Path(__file__).resolve().parent / "csrc")


def require_toolchain() -> None:
    """Fails early on a missing compiler or header, and names its Debian package."""
    compiler = (os.environ.get("CXX") or "c++").split()[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"crnn_ext needs a C++17 compiler, but {compiler!r} was not found: install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SystemExit("crnn_ext needs Python.h, which was not found: install python3-dev")


def find_cuda_home() -> str | None:
    """The folder of a CUDA toolkit: CUDA_HOME, CUDA_PATH, the nvcc on PATH, or /usr/local/cuda.

    An nvcc on PATH without the runtime library beside it, such as a wrapper of another nvcc, is skipped.
    """
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
        raise SystemExit(f"CRNN_EXT_CUDA must be 0, 1 or unset, got {choice!r}")
    if choice == "1" and cuda_home is None:
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        place = f"in CUDA_HOME={home}" if home else "on PATH or in /usr/local/cuda"
        raise SystemExit(
            "CRNN_EXT_CUDA=1 requires a CUDA toolkit (nvcc and libcudart_static.a), but none was found "
            f"{place}: install one, or set CUDA_HOME to its folder"
        )
    return choice == "1" or (choice == "" and cuda_home is not None and torch.version.cuda is not None)


def nvcc_output(cuda_home: str, option: str) -> str:
    command = [f"{cuda_home}/bin/nvcc", option]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def nvcc_version(cuda_home: str) -> str:
    """The version of nvcc, such as "13.0"."""
    return re.search(r"release (\d+\.\d+)", nvcc_output(cuda_home, "--version"))[1]


def architecture_flags(cuda_home: str) -> list[str]:
    """Machine code for the default capabilities that this nvcc supports, and PTX for all other GPUs.

    All of it is compiled from the PTX of the lowest capability: the kernels use no newer instruction, and
    generating PTX per capability takes as long as compiling it to machine code.
    """
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return []  # torch adds the flags
    known = nvcc_output(cuda_home, "--list-gpu-arch").split()
    numbers = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in known]
    code = [f"sm_{number}" for number in numbers] + [f"compute_{numbers[0]}"]
    return [f"-gencode=arch=compute_{numbers[0]},code=[{','.join(code)}]"]


def nvcc_flags(cuda_home: str) -> list[str]:
    host_flags = [f"-Xcompiler={flag}" for flag in ("-fvisibility=hidden", "-Wall", "-Wno-psabi")]
    # Drivers read the smaller format since CUDA 12.4, so all drivers for CUDA 13 do.
    is_13 = int(nvcc_version(cuda_home).split(".")[0]) >= 13
    compression = "--compress-mode=size" if is_13 else "-Xfatbin=-compress-all"
    return [
        *("-O3", "-std=c++17", *host_flags, TORCH_TARGET_VERSION, "-DUSE_CUDA"),
        # Compiles the architectures of a file in four threads.
        *("--threads=4", compression, *architecture_flags(cuda_home)),
    ]


class BuildExtension(cpp_extension.BuildExtension):
    """torch's BuildExtension, which here also compiles .cu files for a CPU build of torch or another CUDA."""

    def build_extensions(self) -> None:
        # torch requires its own CUDA version. Ours may differ: the library links its runtime statically.
        cpp_extension._check_cuda_version = lambda *_: None
        if torch.version.cuda is None:
            # torch then does not track the headers of .cu files, so these are always recompiled.
            for source in {source for extension in self.extensions for source in extension.sources}:
                if source.endswith(".cu"):
                    Path(self.build_temp, source).with_suffix(".o").unlink(missing_ok=True)
        cpp_extension.CUDA_HOME = find_cuda_home()
        print(self.describe_build(), flush=True)
        super().build_extensions()

    def describe_build(self) -> str:
        cuda = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs"
        names = [extension.name for extension in self.extensions]
        if "crnn_ext._C_cuda" in names:
            version = nvcc_version(cpp_extension.CUDA_HOME)
            kernels = f"CUDA kernels by nvcc {version}, for drivers of CUDA {version.split('.')[0]} or later"
        else:
            kernels = "no CUDA kernels"
        return (
            f"crnn_ext: built against torch {torch.__version__} {cuda}, for torch 2.10 and later; {kernels}"
        )


def torch_library(name: str, sources: list[str], link_args: list[str], **options) -> Extension:
    """A shared library for torch.ops.load_library; it links libtorch, but not Python."""
    # libtorch_cuda, which holds the current stream, is loaded through libtorch. No symbol of libtorch itself
    # is used, so --no-as-needed keeps the linker from dropping it.
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
        "-g0",  # Python's flags include debug information: 50 % more build time, 10 times the size
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
        folders = [f"-L{cuda_home}/lib64", f"-L{cuda_home}/lib"]
        cuda_runtime = [*folders, "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
        modules.append(
            torch_library(
                "_C_cuda",
                glob("csrc/*/*.cu"),
                cuda_runtime,
                extra_compile_args={"nvcc": nvcc_flags(cuda_home)},
            )
        )
    return modules


if __name__ == "__main__":
    require_toolchain()
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtension})
