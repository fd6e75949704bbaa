"""The processes that work on one thing together: those that torchrun has started, or this one alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed

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
            torch.distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            )
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return cls(rank, ranks, int(os.environ["LOCAL_RANK"]))

    def leave(self) -> None:
        """Parts from the others; all do it, or those left wait for the time limit of torch."""
        if torch.distributed.is_initialized():
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

    def gather(self, part: Part) -> list[Part]:
        """The part of every process, by rank, on each of them; a part is pickled."""
        parts = [part] * self.ranks
        if self.ranks > 1:
            torch.distributed.all_gather_object(parts, part)
        return parts
