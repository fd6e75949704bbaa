"""The processes that work on one thing together: those that torchrun has started, or this one alone."""

import gc
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

Part = TypeVar("Part")


@dataclass(frozen=True)
class World:
    """This process among all: its rank, how many there are, and its rank among those of this machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls) -> "World":
        """Meets the processes that torchrun has started; without it this one is alone.

        Tensors of the CPU travel through gloo, those of GPUs through NCCL.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        if not torch.distributed.is_initialized():
            # Its functions have the group of that moment as a default argument. DistributedDataParallel
            # imports it, and the group would then outlive `leave`, with threads of gloo that abort the
            # process if they still hold a tensor when Python ends.
            importlib.import_module("torch.distributed.nn")
            torch.distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            )
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return cls(rank, ranks, int(os.environ["LOCAL_RANK"]))

    def leave(self) -> None:
        """Parts from the others; all do it, or those left wait for the time limit of torch."""
        if torch.distributed.is_initialized():
            # What still holds on to the group, such as a network spread over the processes, has to go before.
            gc.collect()
            torch.distributed.destroy_process_group()

    def share(self, items: Sequence[Part]) -> Sequence[Part]:
        """Those of the items that are this process's; their numbers differ by at most one."""
        return items[self.rank :: self.ranks]

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes. Waits for all, but for no GPU."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.ranks > 1:
            torch.distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Makes each of the tensors, in place, the mean of those of all processes."""
        if self.ranks > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
                tensor /= self.ranks

    def from_first(self, make: Callable[[], Part]) -> Part:
        """What the first process makes, or the error that it raises, on each of them; it is pickled."""
        if self.ranks == 1:
            return make()
        made: list[Part | Exception | None] = [None]
        if self.rank == 0:
            try:
                made = [make()]
            except Exception as error:
                made = [error]
        torch.distributed.broadcast_object_list(made)
        if isinstance(made[0], Exception):
            raise made[0]
        return made[0]  # type: ignore[return-value]

    def gather(self, part: Part) -> list[Part]:
        """The part of every process, by rank, on each of them; a part is pickled."""
        parts = [part] * self.ranks
        if self.ranks > 1:
            torch.distributed.all_gather_object(parts, part)
        return parts
