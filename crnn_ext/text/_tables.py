"""Language models, lexicons and hot words as flat tables for the operators.

Symbols are token classes or word indices. States are numbered from 0, the root.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

_Tables = TypeVar("_Tables", bound="Edges")


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of all states in CSR form: grouped by state, sorted by symbol.

    A state with as many edges as there are symbols has one edge per symbol.
    """

    first_edge: Tensor
    """(states + 1,) int32: the first edge of each state, then the total number of edges."""
    edge_symbol: Tensor
    """(edges,) int32: ascending within a state."""
    edge_target: Tensor
    """(edges,) int32: the state each edge leads to."""

    _copies: dict[torch.device, Any] = field(default_factory=dict, init=False, repr=False, kw_only=True)

    @classmethod
    def from_native(cls: type[_Tables], tables: tuple[Any, ...]) -> _Tables:
        """Builds the tables from the native module's tuple: arrays and numbers in the order of the fields."""
        return cls(*(torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in tables))

    def to(self: _Tables, device: torch.device) -> _Tables:
        """The tables on a device. Copies are made once per device and cached."""
        if device == self.first_edge.device:
            return self
        if device not in self._copies:
            parts = (getattr(self, part.name) for part in fields(self) if part.init)
            self._copies[device] = type(self)(
                *(part.to(device) if isinstance(part, Tensor) else part for part in parts)
            )
        copy: _Tables = self._copies[device]
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}


@dataclass(frozen=True, eq=False)
class Automaton(Edges):
    """A weighted finite automaton over symbols with failure transitions; log weights, which add up.

    A symbol follows the state's edge for it and adds the edge weight. Without such an edge, the automaton
    moves to the fail state, adds the fail weight, and tries the symbol there; a state that is its own fail
    state consumes the symbol and stays. At the end of a text the final weight is added.
    """

    edge_weight: Tensor
    """(edges,) float32."""
    fail_state: Tensor
    """(states,) int32: less than the state, or equal to it."""
    fail_weight: Tensor
    """(states,) float32."""
    final_weight: Tensor
    """(states,) float32."""
    start: int
    """The state of the empty text."""

    @cached_property
    def largest_step(self) -> float:
        """An upper bound of the weight that one symbol adds."""
        state, gain = self.fail_state.long(), self.fail_weight.clamp(min=0)
        is_own = state == torch.arange(len(state), device=state.device)
        steps = torch.cat([self.edge_weight, self.fail_weight[is_own]])
        # Pointer jumping sums the gains along each chain of fail states; the last one is its own fail state.
        gain = gain.masked_fill(is_own, 0)
        while bool((state[state] != state).any()):
            gain, state = gain + gain[state], state[state]
        return float(steps.max()) + float(gain.max()) if steps.numel() else 0.0


@dataclass(frozen=True, eq=False)
class WordTrie(Edges):
    """The spellings of words; separators lead from the root, state 0, back to it."""

    word_of_state: Tensor
    """(states,) int32: the index of the word spelled by the path to the state; -1: none."""


def concatenate(tables: Sequence[_Tables]) -> tuple[_Tables, list[int]]:
    """The tables merged into one, and the first state of each."""
    states = [len(table.first_edge) - 1 for table in tables]
    first_state = [0, *itertools.accumulate(states)][:-1]
    first_edge = [0, *itertools.accumulate(len(table.edge_symbol) for table in tables)]

    def joined(name: str) -> Any:
        parts = [getattr(table, name) for table in tables]
        if name == "start":
            return parts[0]
        if name == "first_edge":
            parts = [part + first for part, first in zip(parts, first_edge, strict=False)]
            return torch.cat([*(part[:-1] for part in parts[:-1]), parts[-1]])
        if name in ("edge_target", "fail_state"):
            parts = [part + first for part, first in zip(parts, first_state, strict=True)]
        return torch.cat(parts)

    if len(tables) == 1:
        return tables[0], first_state
    names = [part.name for part in fields(tables[0]) if part.init]
    return type(tables[0])(*map(joined, names)), first_state
