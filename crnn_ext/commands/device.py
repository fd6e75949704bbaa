"""The option of commands that run a network: on which device."""

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda or cuda:N; of several processes on a machine each takes a GPU of its own for cuda "
        "(cuda if torch finds a GPU and crnn_ext was built for it, otherwise cpu)",
    )


def chosen(name: str | None, local_rank: int = 0) -> "torch.device":
    """The device of that name, or the default for None.

    Args:
        name: as `--device` has it.
        local_rank: which of the processes on this machine this is; "cuda" is the GPU of that index.

    Raises:
        ValueError: the device is of an unknown kind, or it is not there.
    """
    import torch

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
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"--device must be cpu or cuda where several processes run on a machine, and it is {name}"
        )
    index, count = local_rank if device.index is None else device.index, torch.cuda.device_count()
    if index >= count:
        raise ValueError(
            f"--device {name}: the index must be below {count}, the number of GPUs, and is {index}"
        )
    return torch.device("cuda", index)


def _missing_for_cuda() -> str | None:
    import torch

    from crnn_ext._load import library_path

    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU"
    return "crnn_ext was built without CUDA" if library_path("_C_cuda") is None else None
