"""The option of commands that run a network: on which device."""

import argparse
import os
from typing import TYPE_CHECKING

from crnn_ext._formatting import pluralize

from .messages import print_stderr

if TYPE_CHECKING:
    import torch

    from crnn_ext.ocr.system.distributed import ProcessGroup


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda or cuda:N; for cuda each of several processes on a machine takes a GPU of its own, "
        "or shares one (cuda if torch finds a GPU and crnn_ext was built for it, otherwise cpu)",
    )


def select(name: str | None, group: "ProcessGroup | None" = None) -> "torch.device":
    """The device of that name, or the default for None.

    Args:
        name: as `--device` has it.
        group: the processes that work together, if there are several; for "cuda" each takes the GPU of its
            rank on its machine. Where they share GPUs, the first one says so.

    Raises:
        ValueError: the device is of an unknown kind, or it is not there.
    """
    import torch

    from crnn_ext.ocr.system.distributed import ProcessGroup, gpu_for_local_rank

    group = group or ProcessGroup()
    missing = _missing_for_cuda()
    if name is None:
        name = "cpu" if missing else "cuda"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, and it is {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")
    if missing:
        raise ValueError(f"--device {name}: {missing}")
    if device.index is None:
        if group.rank == 0 and 0 < group.num_gpus < group.world_size:
            print_stderr(f"{group.world_size} processes share {pluralize(group.num_gpus, 'GPU')}")
        return gpu_for_local_rank(group.local_rank)
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"--device must be cpu or cuda where several processes run on a machine, and it is {name}"
        )
    gpus = torch.cuda.device_count()
    if device.index >= gpus:
        raise ValueError(f"--device {name}: the index must be in [0, {gpus}), got {device.index}")
    return device


def _missing_for_cuda() -> str | None:
    import torch

    from crnn_ext._load import library_path

    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    return "crnn_ext was built without CUDA" if library_path("_C_cuda") is None else None
