"""Print what results depend on as JSON: sources, GPU, driver, compilers, torch and peers.

Runs in a process of its own, because a broken driver can make it hang.
"""

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import rehearsal
import torch
from timing import environment

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("setup.py", "csrc", "crnn_ext", "tools/gpu_check")
_PEERS = ("torchaudio", "jax", "optax", "triton")
# Time limit of nvcc and of nvidia-smi, which may hang.
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
    """Returns a hash of all sources that are built or measure: a copy of the repository may lack .git."""
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


def cuda_toolkit() -> str | None:
    """Returns the folder of the toolkit that setup.py builds with."""
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
    """Returns the description, without "device" if torch sees no GPU."""
    toolkit = cuda_toolkit()
    release = re.search(r"release ([\d.]+)", output_of(f"{toolkit}/bin/nvcc", "--version"))
    versions = {distribution.name: distribution.version for distribution in distributions()}
    known = {
        **environment(),
        "python": sys.version.split()[0],
        "torch's CUDA": torch.version.cuda,
        "CUDA toolkit": toolkit,
        "nvcc": release.group(1) if release else "not installed",
        **{peer: versions.get(peer, "not installed") for peer in _PEERS},
        "sources": hash_of_sources(),
    }
    return known | gpu() if torch.cuda.is_available() else known


if __name__ == "__main__":
    if "--rehearsal" in sys.argv:
        rehearsal.pretend_device()
    print(json.dumps(describe()))
