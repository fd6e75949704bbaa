"""Builds the CUDA kernels for the CPU: the drivers in four variants, and the operators for torch.

Run `python -m cuda_on_host.build` in tests/ to build what the default tests need into build/cuda_on_host/,
and `python -m cuda_on_host.build --all` to build everything.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "cuda_on_host"

DRIVERS = sorted(path.stem for path in (HERE / "drivers").glob("*.cu"))

# Compiler flags of kernels and drivers. The runtime is compiled once, without them.
VARIANTS = {
    "plain": "-O2",
    "asan": "-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer",
    # Instrumented, but linked with the race checker instead of ThreadSanitizer's library.
    "race": "-O1 -fsanitize=thread",
    # GPU-like arithmetic: fused multiply-add, and math functions with the ulp errors that CUDA documents.
    "rounding": "-O2 -mfma -ffp-contract=fast -DCUDA_ON_HOST_ROUNDING",
}

# The kernels as torch operators, with the dispatch key PrivateUse3.
OPERATOR_LIBRARY = FOLDER / "libcrnn_ext_cuda_on_host.so"

# The torch device of tests/pretend_cuda.
DEVICE_LIBRARY = FOLDER / "libpretend_cuda.so"


def driver_path(variant: str, name: str) -> Path:
    return FOLDER / variant / name


# The driver with planted faults, which every variant must find.
FAULTS = "planted_faults"


def default_targets() -> list[Path]:
    """What the default tests need: few drivers in the variants that compile and run slowly."""
    plain = [driver_path("plain", name) for name in DRIVERS]
    checked = [driver_path(variant, FAULTS) for variant in VARIANTS]
    return [OPERATOR_LIBRARY, DEVICE_LIBRARY, driver_path("race", "greedy"), *plain, *checked]


def unavailable_reason() -> str | None:
    """Returns why this machine cannot build anything, or None if it can."""
    return None if shutil.which("g++") else "g++ is not installed"


def _ninja_file() -> str:
    includes = f"-I{HERE}/include -I{HERE} -I{ROOT}/csrc"
    warnings = "-Wall -Wextra -Wno-unknown-pragmas -Wno-psabi"
    torch_includes = " ".join(f"-isystem {path}" for path in cpp_extension.include_paths())
    torch_folders = " ".join(f"-L{path} -Wl,-rpath,{path}" for path in cpp_extension.library_paths())
    lines = [
        f"common = -std=c++20 -g {warnings} {includes}",
        "rule compile",
        "  command = g++ $common $flags -MMD -MF $out.d -x c++ -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        "  command = g++ $in -o $out $flags",
    ]

    def target(rule: str, output: Path, inputs: list[Path], flags: str) -> Path:
        lines.append(f"build {output}: {rule} {' '.join(map(str, inputs))}\n  flags = {flags}")
        return output

    hidden = "-fPIC -fvisibility=hidden"
    parts = {
        path.stem: target("compile", FOLDER / "runtime" / f"{path.stem}.o", [path], f"-O2 {hidden}")
        for path in sorted((HERE / "runtime").glob("*.cpp"))
    }
    race_checker = parts.pop("race_checker")
    runtime = list(parts.values())

    for variant, flags in VARIANTS.items():
        for name in DRIVERS:
            source, compiled = HERE / "drivers" / f"{name}.cu", FOLDER / variant / f"{name}.o"
            objects = [target("compile", compiled, [source], flags), *runtime]
            if variant == "race":
                objects.append(race_checker)
            target("link", driver_path(variant, name), objects, flags if variant == "asan" else "")

    stable_abi = f"{VARIANTS['rounding']} {hidden} {torch_includes} -DTORCH_TARGET_VERSION=0x020a000000000000"
    operators = [
        target("compile", FOLDER / "operators" / f"{path.parent.name}_{path.stem}.o", [path], stable_abi)
        for path in sorted((ROOT / "csrc").glob("*/*.cu"))
    ]
    link_flags = f"-shared {torch_folders} -ltorch_cpu -lc10 -Wl,-z,defs"
    target("link", OPERATOR_LIBRARY, [*operators, *runtime], link_flags)
    device = [HERE.parent / "pretend_cuda" / "device.cpp"]
    device = [target("compile", FOLDER / "pretend_cuda.o", device, f"-O1 {hidden} {torch_includes}")]
    target("link", DEVICE_LIBRARY, device, link_flags)
    return "\n".join(lines) + "\n"


def build(*targets: Path) -> None:
    """Brings the given targets up to date, or all targets if none are given."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may build at the same time
        (FOLDER / "build.ninja").write_text(_ninja_file())
        command = [sys.executable, "-m", "ninja", "-C", FOLDER, *targets]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"cannot build {FOLDER}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    build(*([] if sys.argv[1:] == ["--all"] else default_targets()))
