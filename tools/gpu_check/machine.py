"""What a result depends on, as JSON: the sources, the GPU, its driver, the compilers, torch and the peers.

A process of its own, so that a driver that hangs cannot take the whole command with it.
"""

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rehearsal
import torch
from timing import environment

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("setup.py", "csrc", "crnn_ext", "benchmarks/gpu")
_PEERS = ("torchaudio", "jax", "optax", "triton")
# Of nvidia-smi, which may hang with its driver, and of nvcc.
_SECONDS = 10


def output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def hash_of_sources() -> str:
    """Of all that is built and measured; a copy of the checkout may have no commit to name."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = ROOT / source
        files = [path] if path.is_file() else sorted(filter(_is_source, path.rglob("*")))
        for file in files:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _is_source(path: Path) -> bool:
    return path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cuda_toolkit() -> str | None:
    """The folder of the one that setup.py builds with."""
    return runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["find_cuda_home"]()


def gpu() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory GB": properties.total_memory / 1e9,
        "L2 bytes": properties.L2_cache_size,
        "driver": driver.split("\n")[0],
        "cuDNN": torch.backends.cudnn.version(),
    }


def describe() -> dict[str, object]:
    """Everything known; without "device" where torch sees no GPU."""
    toolkit = cuda_toolkit()
    release = re.search(r"release ([\d.]+)", output_of(f"{toolkit}/bin/nvcc", "--version"))
    known = {
        **environment(),
        "python": sys.version.split()[0],
        "torch's CUDA": torch.version.cuda,
        "CUDA toolkit": toolkit,
        "nvcc": release.group(1) if release else "not installed",
        **{peer: version_of(peer) for peer in _PEERS},
        "sources": hash_of_sources(),
    }
    return known | gpu() if torch.cuda.is_available() else known


if __name__ == "__main__":
    if "--rehearsal" in sys.argv:
        rehearsal.pretend_device()
    print(json.dumps(describe()))
