"""What a result depends on, as JSON: the GPU, its driver, torch and the compilers.

A process of its own, so that a driver that hangs cannot take the whole command with it.
"""

import json
import re
import shutil
import subprocess
import sys

import rehearsal
import torch
from timing import environment


def said_by(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def gpu() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory GB": properties.total_memory / 1e9,
        "L2 bytes": properties.L2_cache_size,
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0],
        "cuDNN": torch.backends.cudnn.version(),
    }


def describe() -> dict[str, object]:
    """Everything known; without "device" where torch sees no GPU."""
    version = re.search(r"release ([\d.]+)", said_by("nvcc", "--version"))
    known = {
        **environment(),
        "python": sys.version.split()[0],
        "torch's CUDA": torch.version.cuda,
        "nvcc": version.group(1) if version else "not installed",
    }
    return known | gpu() if torch.cuda.is_available() else known


if __name__ == "__main__":
    if "--rehearsal" in sys.argv:
        rehearsal.pretend_device()
    print(json.dumps(describe()))
