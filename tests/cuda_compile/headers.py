"""Headers of other releases of torch and CUDA, extracted from their wheels without installing them."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "headers"


@dataclass(frozen=True)
class Package:
    requirement: str
    folders: dict[str, str]  # folders of the wheel to extract, and their targets
    platform: str = "manylinux2014_x86_64"


def torch_release(version: str) -> list[Package]:
    # The wheel for macOS has the same headers and is the smallest.
    folders = {"torch/include/": ""}
    return [Package(f"torch=={version}", folders, platform="macosx_11_0_arm64")]


# Laid out like a CUDA toolkit: clang also looks for bin/ and libdevice.
CUDA_12_6 = [
    Package("nvidia-cuda-runtime-cu12==12.6.77", {"nvidia/cuda_runtime/include/": "include/"}),
    Package("nvidia-cuda-cccl-cu12==12.6.77", {"nvidia/cuda_cccl/include/": "include/cccl/"}),
    Package(
        "nvidia-cuda-nvcc-cu12==12.6.85",
        {
            "nvidia/cuda_nvcc/include/": "include/",
            "nvidia/cuda_nvcc/nvvm/libdevice/": "nvvm/libdevice/",
            "nvidia/cuda_nvcc/bin/": "bin/",
        },
    ),
]


def unpack(name: str, packages: list[Package]) -> Path:
    """Returns the folder with the contents of the packages, downloading them on the first call."""
    folder = FOLDER / name
    if folder.is_dir():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        partial = Path(temporary, "partial")
        for package in packages:
            _extract(_download(package, Path(temporary)), package.folders, partial)
        partial.rename(folder)
    return folder


def _download(package: Package, folder: Path) -> Path:
    print(f"Downloading the headers of {package.requirement}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--python-version=3.12", "--dest", folder / "wheels"]
    command += ["--platform", package.platform, package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"cannot download {package.requirement} for its headers in {FOLDER}\n{done.stderr}")
    (wheel,) = (folder / "wheels").iterdir()
    return wheel.rename(folder / wheel.name)


def _extract(wheel: Path, folders: dict[str, str], to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            for source, target in folders.items():
                if name.startswith(source) and not name.endswith("/"):
                    path = to / target / name.removeprefix(source)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as member, path.open("wb") as file:
                        shutil.copyfileobj(member, file)
