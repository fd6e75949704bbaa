"""Compiles every source with every front end, and the kernels to machine code.

The outputs are in build/cuda_compile/. Outputs that are up to date are not compiled again.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from torch.utils import cpp_extension

from cuda_compile import headers
from cuda_compile.headers import ROOT

FOLDER = ROOT / "build" / "cuda_compile"

OLDEST_TORCH = "2.10.0"
# The oldest compute capability that is audited. ptxas compiles its PTX for newer GPUs, as a driver does.
PTX = "80"
ARCHITECTURES = ["80", "90", "120"]

CUDA_SOURCES = sorted((ROOT / "csrc").glob("*/*.cu"))
CPU_SOURCES = sorted(path for path in (ROOT / "csrc").glob("*/*.cpp") if path.parent.name != "text")

# The flags of setup.py. Torch's build adds --expt-relaxed-constexpr for nvcc.
COMMON = "-std=c++17 -DTORCH_TARGET_VERSION=0x020a000000000000"
# Checks of bugprone with false positives in this code.
NOISY = [
    "dynamic-static-initializers",
    "easily-swappable-parameters",
    "implicit-widening-of-multiplication-result",
    "macro-parentheses",
    "narrowing-conversions",
    "signed-bitwise",
    "sizeof-expression",
]
CHECKS = ",".join(["-*", "clang-diagnostic-*", "bugprone-*", *(f"-bugprone-{name}" for name in NOISY)])


def artifact(source: Path, architecture: str, suffix: str) -> Path:
    """The path of an output: "ptxas" for the log of ptxas, "sass" for the instructions, or "cubin"."""
    return FOLDER / _name(source) / f"sm_{architecture}.{suffix}"


def ptx(source: Path) -> Path:
    return FOLDER / _name(source) / f"{source.stem}.ptx"


def unavailable_reason() -> str | None:
    """Returns why this machine cannot compile anything, or None if it can."""
    for program in ("nvcc", "g++", "c++filt"):
        if shutil.which(program) is None:
            return f"{program} is not on PATH"
    for package in ("clang-tidy", "nvidia-cuda-nvdisasm"):
        if not any(importlib.metadata.distributions(name=package)):
            return f"the package {package} is not installed (requirements-dev.txt)"
    return None


def _toolkit() -> Path:
    """The folder of the CUDA toolkit. The nvcc on PATH may be a wrapper."""
    command = ["nvcc", "--dryrun", "-x", "cu", os.devnull]
    steps = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (folder,) = re.findall(r"^#\$ _HERE_=(.*)$", steps, re.MULTILINE)
    return Path(folder).parent


def _name(source: Path) -> str:
    return f"{source.parent.name}_{source.stem}"


def _ninja_file() -> str:
    toolkit = _toolkit()
    clang_tidy = Path(sys.executable).with_name("clang-tidy")
    disassembler = importlib.metadata.distribution("nvidia-cuda-nvdisasm")
    nvdisasm = disassembler.locate_file("nvidia/cu13/bin/nvdisasm")
    old_torch = [str(headers.unpack(f"torch-{OLDEST_TORCH}", headers.torch_release(OLDEST_TORCH)))]
    old_cuda = headers.unpack("cuda-12.6", headers.CUDA_12_6)
    new_torch = cpp_extension.include_paths()
    # clang wants a header of curand for the sake of programs that use it.
    stub = FOLDER / "include" / "curand_mtgp32_kernel.h"
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.touch()

    def system(folders: list[str]) -> str:
        return " ".join(f"-isystem {folder}" for folder in folders)

    lines = [
        f"common = {COMMON} -I{ROOT}/csrc",
        "rule host",
        "  command = g++ -fsyntax-only -fvisibility=hidden -Wall -Werror -Wno-psabi $common $flags $in "
        "&& touch $out",
        "  description = g++ $in, $against",
        "rule clang",
        f"  command = {clang_tidy} --quiet --checks='{CHECKS}' --warnings-as-errors='*' $in -- "
        f"-x cuda --cuda-gpu-arch=sm_{PTX} -Wall -Wno-unknown-cuda-version $common -DUSE_CUDA "
        f"-isystem {stub.parent} $flags && touch $out",
        "  description = clang $in, $against",
        "rule ptx",
        f"  command = {toolkit}/bin/nvcc -c --keep --keep-dir $folder -O3 --expt-relaxed-constexpr "
        f"-gencode=arch=compute_{PTX},code=compute_{PTX} $common -DUSE_CUDA $flags $in -o $folder/host.o",
        "  description = nvcc $in, $against",
        "rule ptxas",
        "  command = "
        f"{toolkit}/bin/ptxas -v -arch=$architecture $in -o $out > $log 2>&1 || {{ cat $log; exit 1; }}",
        "rule sass",
        f"  command = {nvdisasm} -c $in > $out",
    ]

    def target(rule: str, output: Path, source: Path, **variables: str | Path) -> Path:
        # Every target depends on all headers, because clang-tidy does not report dependencies.
        lines.append(f"build {output}: {rule} {source} | headers")
        lines.extend(f"  {name} = {value}" for name, value in variables.items())
        output.parent.mkdir(parents=True, exist_ok=True)
        return output

    lines.append("build headers: phony " + " ".join(map(str, sorted((ROOT / "csrc").rglob("*.*h")))))
    old, new = f"torch {OLDEST_TORCH}", "the installed torch"
    for source in CPU_SOURCES:
        target("host", FOLDER / _name(source) / "host", source, flags=system(old_torch), against=old)
    for source in CUDA_SOURCES:
        folder = FOLDER / _name(source)
        for release, torch, cuda, against in (
            ("old", old_torch, old_cuda, f"CUDA 12.6 and {old}"),
            ("new", new_torch, toolkit, f"{toolkit} and {new}"),
        ):
            for side in ("host", "device"):
                flags = f"--cuda-path={cuda} --cuda-{side}-only {system([*torch, f'{cuda}/include/cccl'])}"
                target(
                    "clang",
                    folder / f"clang_{release}_{side}",
                    source,
                    flags=flags,
                    against=f"{side}, {against}",
                )
        target("ptx", ptx(source), source, folder=folder, flags=system(old_torch), against=old)
        for architecture in ARCHITECTURES:
            cubin = artifact(source, architecture, "cubin")
            log = artifact(source, architecture, "ptxas")
            target("ptxas", cubin, ptx(source), architecture=f"sm_{architecture}", log=log)
            target("sass", artifact(source, architecture, "sass"), cubin)
    return "\n".join(lines) + "\n"


def build() -> bool:
    """Compiles everything, prints the compilers' messages, and returns whether all succeeded."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "build.ninja").write_text(_ninja_file())
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
    command = [sys.executable, "-m", "ninja", "-C", FOLDER, "-k0", "-j", jobs]
    return subprocess.run(command, check=False).returncode == 0
