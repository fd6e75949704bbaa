"""The process group: the processes that torchrun started, or this process alone."""

import gc
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed
from torch import Tensor

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

# torchrun sets these variables; other launchers of torch processes have to set them too.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def gpu_for_local_rank(local_rank: int) -> torch.device:
    """The GPU for a local rank; if a machine has more processes than GPUs, processes share GPUs round-robin.

    Raises:
        ValueError: torch finds no GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError("the device must be cpu, got cuda: torch finds no CUDA GPU")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process, the number of processes, and the rank of this process on its machine.

    `owns_group` is True if `initialize` created the torch process group; `destroy` then destroys it.
    `num_gpus` counts the distinct GPUs of such a group. It is 0 unless every process has a GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    owns_group: bool = False
    num_gpus: int = 0

    @classmethod
    def initialize(cls) -> "ProcessGroup":
        """Initializes the process group that torchrun describes; without torchrun, returns a group of one.

        If the program has already initialized a process group, this method uses it; that group must support
        gloo for CPU tensors. Otherwise gloo carries CPU tensors, and NCCL carries GPU tensors. If processes
        share a GPU, which NCCL refuses, gloo carries GPU tensors too.

        Raises:
            ValueError: there are several processes, but a variable that torchrun sets is missing.
        """
        owns_group = not torch.distributed.is_initialized()
        num_gpus = 0
        if owns_group:
            missing = [name for name in _VARIABLES if name not in os.environ]
            if missing and int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError(f"{missing[0]} must be set if WORLD_SIZE is {os.environ['WORLD_SIZE']}")
            if missing:
                return cls()
            # The functions of this module bind the current group as a default argument. If
            # DistributedDataParallel imported the module later, it would keep the group alive after
            # `destroy`: gloo threads that still hold a tensor when Python exits abort the process.
            importlib.import_module("torch.distributed.nn")
            store, rank, world_size = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]
            num_gpus = _count_distinct_gpus(store, rank, world_size)
            backend = "cpu:gloo,cuda:nccl" if num_gpus == world_size else "gloo"
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return cls(rank, world_size, int(os.environ.get("LOCAL_RANK", rank)), owns_group, num_gpus)

    def destroy(self) -> None:
        """Destroys the torch process group if `initialize` created it.

        Every process has to call it; otherwise the others wait until they time out.
        """
        if self.owns_group:
            # Free what still references the group first, for example a DistributedDataParallel module.
            gc.collect()
            torch.distributed.destroy_process_group()

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this process; the shards of two processes differ in length by at most one."""
        return items[self.rank :: self.world_size]

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes. Waits for all processes, but for no GPU."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.world_size > 1:
            torch.distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def all_reduce_mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor, in place, with its mean over all processes."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
                tensor /= self.world_size

    def broadcast_from_rank0(self, make: Callable[[], T]) -> T:
        """Calls `make` on rank 0; every rank returns its pickled result or raises its error."""
        if self.world_size == 1:
            return make()
        made: list[T | Exception | None] = [None]
        if self.rank == 0:
            try:
                made = [make()]
            except Exception as error:
                made = [error]
        torch.distributed.broadcast_object_list(made)
        if isinstance(made[0], Exception):
            raise made[0]
        return made[0]  # type: ignore[return-value]

    def all_gather(self, part: T) -> list[T]:
        """The parts of all processes, ordered by rank, on every rank; parts are pickled."""
        parts = [part] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(parts, part)
        return parts


def _count_distinct_gpus(store: "Store", rank: int, world_size: int) -> int:
    """The number of distinct GPUs of all processes, equal on every rank; 0 unless every process has a GPU.

    It compares UUIDs, because a launcher may show each process only its own GPU, always with index 0.
    """
    own = ""
    if torch.cuda.is_available():
        local_rank = int(os.environ["LOCAL_RANK"])
        own = str(torch.cuda.get_device_properties(gpu_for_local_rank(local_rank)).uuid)
    store.set(f"gpu of {rank}", own)
    uuids = set(store.multi_get([f"gpu of {other}" for other in range(world_size)]))
    return 0 if b"" in uuids else len(uuids)
