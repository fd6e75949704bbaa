"""The device of a command."""

import os
from typing import TYPE_CHECKING

from crnn_ext._formatting import pluralize

from .messages import print_stderr

if TYPE_CHECKING:
    import torch

    from crnn_ext.ocr.system.distributed import ProcessGroup


def select(name: str | None, group: "ProcessGroup | None" = None) -> "torch.device":
    """The device of a name, by default "cuda" if torch finds a GPU and crnn_ext was built for it.

    Args:
        name: value of `--device`.
        group: the processes that share the work. With "cuda" each takes the GPU of its local rank; if they
            share GPUs, rank 0 says so.

    Raises:
        ValueError: the name is invalid or the device is not available.
    """
    import torch

    from crnn_ext.ocr.system.distributed import ProcessGroup, gpu_for_local_rank

    group = group or ProcessGroup()
    problem = _cuda_problem()
    if name is None:
        name = "cpu" if problem else "cuda"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")
    if problem:
        raise ValueError(f"--device {name}: {problem}")
    if device.index is None:
        if group.rank == 0 and 0 < group.num_gpus < group.world_size:
            print_stderr(f"{group.world_size} processes share {pluralize(group.num_gpus, 'GPU')}")
        return gpu_for_local_rank(group.local_rank)
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise ValueError(f"--device must be cpu or cuda with several processes on a machine, got {name}")
    gpus = torch.cuda.device_count()
    if device.index >= gpus:
        raise ValueError(f"--device {name}: the index must be in [0, {gpus}), got {device.index}")
    return device


def _cuda_problem() -> str | None:
    """Why CUDA cannot be used; None if it can."""
    import torch

    from crnn_ext._load import library_path

    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    return "crnn_ext was built without CUDA" if library_path("_C_cuda") is None else None
