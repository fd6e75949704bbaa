"""The processes that work on one thing together: those that torchrun has started, or this one alone."""

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

# What torchrun sets, and others that start processes for torch have to set.
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def gpu_for_local_rank(local_rank: int) -> torch.device:
    """The GPU of a process of this rank on its machine; more processes than GPUs share them in turns.

    Raises:
        ValueError: torch finds no GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError("the device must be cpu, got cuda, and torch finds no CUDA GPU")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


@dataclass(frozen=True)
class ProcessGroup:
    """This process among all: its rank, how many there are, and its rank among those of this machine.

    `owns_group` is whether the group of processes is this object's own, for `destroy` to end; `num_gpus` is how many
    different GPUs such a group has, 0 unless every process has one.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    owns_group: bool = False
    num_gpus: int = 0

    @classmethod
    def initialize(cls) -> "ProcessGroup":
        """Meets the processes that torchrun has started; without it this one is alone.

        A program that has set up a process group by itself goes on with that one; it has to have gloo for
        tensors of the CPU. Otherwise these travel through gloo, and those of GPUs through NCCL; through gloo
        too where processes share a GPU, which NCCL refuses.

        Raises:
            ValueError: there are several processes, but what starts them has not set all that torchrun sets.
        """
        owns_group = not torch.distributed.is_initialized()
        num_gpus = 0
        if owns_group:
            missing = [name for name in _NAMES if name not in os.environ]
            if missing and int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError(
                    f"{missing[0]} must be set as WORLD_SIZE is, which is {os.environ['WORLD_SIZE']}"
                )
            if missing:
                return cls()
            # Its functions have the group of that moment as a default argument. DistributedDataParallel
            # imports it, and the group would then outlive `destroy`, with threads of gloo that abort the
            # process if they still hold a tensor when Python ends.
            importlib.import_module("torch.distributed.nn")
            store, rank, world_size = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]
            num_gpus = _count_distinct_gpus(store, rank, world_size)
            backend = "cpu:gloo,cuda:nccl" if num_gpus == world_size else "gloo"
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return cls(rank, world_size, int(os.environ.get("LOCAL_RANK", rank)), owns_group, num_gpus)

    def destroy(self) -> None:
        """Parts from the others, if `initialize` has met them; all do it, or those left wait for the time limit."""
        if self.owns_group:
            # What still holds on to the group, such as a network spread over the processes, has to go before.
            gc.collect()
            torch.distributed.destroy_process_group()

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Those of the items that are this process's; their numbers differ by at most one."""
        return items[self.rank :: self.world_size]

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes. Waits for all, but for no GPU."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.world_size > 1:
            torch.distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def all_reduce_mean_(self, tensors: Iterable[Tensor]) -> None:
        """Makes each of the tensors, in place, the mean of those of all processes."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
                tensor /= self.world_size

    def broadcast_from_rank0(self, make: Callable[[], T]) -> T:
        """What the first process makes, or the error that it raises, on each of them; it is pickled."""
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
        """The part of every process, by rank, on each of them; a part is pickled."""
        parts = [part] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(parts, part)
        return parts


def _count_distinct_gpus(store: "Store", rank: int, world_size: int) -> int:
    """How many GPUs the processes have between them, the same for all; 0 unless each has one.

    By their UUIDs: a launcher may show each process its own GPU alone, and all of them by the same index.
    """
    own = ""
    if torch.cuda.is_available():
        own = str(torch.cuda.get_device_properties(gpu_for_local_rank(int(os.environ["LOCAL_RANK"]))).uuid)
    store.set(f"gpu of {rank}", own)
    uuids = set(store.multi_get([f"gpu of {other}" for other in range(world_size)]))
    return 0 if b"" in uuids else len(uuids)
