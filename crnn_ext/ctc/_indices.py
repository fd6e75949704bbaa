"""Labels and lengths on their way from what users pass to the tensors that operators take."""

from collections.abc import Sequence

import torch
from torch import Tensor

Lengths = Tensor | Sequence[int] | int
Targets = Tensor | Sequence[int] | Sequence[Sequence[int]]
TargetLists = Targets | Sequence[Sequence[Sequence[int]]]

_INDICES = (torch.int64, torch.int32)
# The modes of torch in which tensors have no values, or what is computed from values is recorded.
_TRACING = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)
_INTEGERS = (*_INDICES, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def index_tensor(name: str, value: Lengths | TargetLists) -> Tensor:
    """An int32 or int64 tensor."""
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must be a tensor or a sequence of int ({error})") from None
        if value.numel() == 0:  # an empty list has no elements to take an integer dtype from
            value = value.long()
    if value.dtype not in _INTEGERS:
        raise TypeError(f"{name} must have an integer dtype, and it has {value.dtype}")
    return value if value.dtype in _INDICES else value.to(torch.int64)


def lengths_tensor(name: str, value: Lengths, samples: int, batched: bool) -> Tensor:
    """(N,) lengths; of an unbatched sample's, any shape with one element."""
    lengths = index_tensor(name, value)
    if not batched:
        lengths = lengths.reshape(-1)
    if lengths.dim() != 1 or lengths.shape[0] != samples:
        raise ValueError(f"{name} must have shape (N={samples},), and its shape is {tuple(lengths.shape)}")
    return lengths


def input_lengths_tensor(value: Lengths | None, logits: Tensor, batched: bool) -> Tensor:
    """(N,) lengths of the samples of logits (T, N, C); all T frames if None."""
    frames, samples = logits.shape[:2]
    if value is None:
        return torch.full((samples,), frames, dtype=torch.int64, device=logits.device)
    return lengths_tensor("input_lengths", value, samples, batched)


def input_lengths_to_device(operator: str, lengths: Tensor, logits: Tensor) -> Tensor:
    """Lengths beside their logits; those in the CPU's memory are checked before they leave it."""
    elsewhere = logits.device.type != "cpu" and lengths.device.type == "cpu"
    if elsewhere and not torch.compiler.is_compiling():
        torch.ops.crnn_ext.input_lengths_check.default(lengths, logits.shape[0], operator)
    return to_device([lengths], logits.device)[0]


def targets_tensor(value: Targets, samples: int, batched: bool) -> Tensor:
    """(N, S) targets, or concatenated in one dimension."""
    targets = index_tensor("targets", value)
    if not batched:
        if targets.dim() != 1:
            raise ValueError(
                f"targets must be (S,) for unbatched logits, and its shape is {tuple(targets.shape)}"
            )
        return targets.unsqueeze(0)
    if targets.dim() not in (1, 2) or (targets.dim() == 2 and targets.shape[0] != samples):
        raise ValueError(
            f"targets must be (N={samples}, S) or concatenated in one dimension, "
            f"and its shape is {tuple(targets.shape)}"
        )
    return targets


def check_cpu_values(operator: str, indices: list[Tensor], frames: int, classes: int, blank: int) -> None:
    """Checks targets, input_lengths and target_lengths where they are in the CPU's memory; others pass."""
    held = [tensor.device.type == "cpu" for tensor in indices]
    if not any(held) or (classes == 1 and not held[0]):  # no label would pass as one of a single class
        return
    if not held[2]:  # where each text's labels lie cannot be told
        indices, held[0] = [torch.empty(0, dtype=torch.int64, device="cpu"), *indices[1:]], True
    right = (1 if blank == 0 else 0, 0, 0)
    values = [
        tensor if is_held else torch.tensor(value, device="cpu").expand(tensor.shape)
        for tensor, is_held, value in zip(indices, held, right, strict=True)
    ]
    torch.ops.crnn_ext.targets_check.default(*values, frames, classes, blank, operator)


def longest_target(target_lengths: Tensor, device: torch.device) -> int:
    """The largest of the lengths, by which operators on a GPU choose kernels; -1 where only that would know.

    Without it they have to allow for what the shape of targets allows, which is much if those are
    concatenated. Where calls are traced it would become a constant of the graph, or fake lengths have none.
    """
    if device.type == "cpu" or target_lengths.device.type != "cpu" or target_lengths.numel() == 0:
        return -1
    if torch.compiler.is_compiling() or any(torch._C._get_dispatch_mode(mode) for mode in _TRACING):
        return -1
    return max(int(target_lengths.max()), 0)


def to_device(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on `device`; those in the CPU's memory go to a GPU in one copy that is not waited for."""
    if all(tensor.device == device for tensor in tensors):
        return tensors
    on_cpu = [i for i, tensor in enumerate(tensors) if tensor.device.type == "cpu"]
    if device.type != "cuda" or not on_cpu or torch.compiler.is_compiling():
        # To the CPU a copy has to be waited for: it is read next.
        return [tensor.to(device, non_blocking=device.type != "cpu") for tensor in tensors]
    if torch.cuda.is_current_stream_capturing():
        # The copy would be part of the graph, and its source long gone when that is replayed.
        raise ValueError("in a CUDA graph targets and lengths must be on the GPU, and some are on the CPU")
    packed = _pack([tensors[i] for i in on_cpu], pin_memory=True)
    parts = _unpack(packed.to(device, non_blocking=True), [tensors[i].shape for i in on_cpu])
    arrived = dict(zip(on_cpu, parts, strict=True))
    return [arrived.get(i, tensor).to(device) for i, tensor in enumerate(tensors)]


def _pack(tensors: list[Tensor], *, pin_memory: bool) -> Tensor:
    """All elements, one tensor behind the other; only pinned memory can be copied without waiting."""
    flat = [tensor.reshape(-1).long() for tensor in tensors]
    packed = torch.empty(sum(map(len, flat)), dtype=torch.int64, device="cpu", pin_memory=pin_memory)
    return torch.cat(flat, out=packed)


def _unpack(packed: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = packed.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
