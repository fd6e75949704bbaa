"""Runs `make gpu` in tests: the command, a fake CUDA toolkit, and rows of results."""

import os
import subprocess
import sys

from helpers.paths import ROOT

FOLDER = ROOT / "tools" / "gpu_check"

# Shapes of ctc_loss.
SMALL, WIDE = [160, 64, 97, 40], [183, 90, 10241, 29]


def gpu_command(*options, **environment):
    return subprocess.run(
        [sys.executable, FOLDER, *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def loss_row(contender, shape=SMALL, **fields):
    return {"op": "ctc_loss", "shape": shape, "contender": contender, "dtype": "float32", **fields}


def toolkit(folder, status=0):
    """Creates a CUDA toolkit whose nvcc has a version, writes no output and exits with this status."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib64").mkdir()
    (folder / "lib64" / "libcudart_static.a").touch()
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(f'#!/bin/sh\n[ "$1" = --version ] || exit {status}\necho release 1.2\n')
    nvcc.chmod(0o755)
    return str(folder)
