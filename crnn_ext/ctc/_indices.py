"""Converts labels and lengths as users pass them to the tensors that the operators take."""

from collections.abc import Sequence

import torch
from torch import Tensor

Lengths = Tensor | Sequence[int] | int
Targets = Tensor | Sequence[int] | Sequence[Sequence[int]]
TargetLists = Targets | Sequence[Sequence[Sequence[int]]]

_INDICES = (torch.int64, torch.int32)
_INTEGERS = (*_INDICES, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
# Dispatch modes of tracing: fake tensors have no values, and proxies record what is computed from values.
_TRACING = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)


def index_tensor(name: str, value: Lengths | TargetLists) -> Tensor:
    """The value as an int32 or int64 tensor."""
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must be a tensor or a sequence of int ({error})") from None
        if value.numel() == 0:  # an empty list becomes a float tensor
            value = value.long()
    if value.dtype not in _INTEGERS:
        raise TypeError(f"{name} must have an integer dtype, got {value.dtype}")
    return value if value.dtype in _INDICES else value.to(torch.int64)


def lengths_tensor(name: str, value: Lengths, samples: int, batched: bool) -> Tensor:
    """(N,) lengths; for an unbatched sample, any shape with one element is accepted."""
    lengths = index_tensor(name, value)
    if not batched:
        lengths = lengths.reshape(-1)
    if lengths.dim() != 1 or lengths.shape[0] != samples:
        raise ValueError(f"{name} must have shape (N={samples},), got shape {tuple(lengths.shape)}")
    return lengths


def input_lengths_tensor(value: Lengths | None, logits: Tensor, batched: bool) -> Tensor:
    """(N,) input lengths for logits (T, N, C); None means all T frames."""
    frames, samples = logits.shape[:2]
    if value is None:
        return torch.full((samples,), frames, dtype=torch.int64, device=logits.device)
    return lengths_tensor("input_lengths", value, samples, batched)


def input_lengths_to_device(operator: str, lengths: Tensor, logits: Tensor) -> Tensor:
    """The lengths on the device of logits. Lengths on the CPU are checked before they are copied to a GPU."""
    needs_copy = logits.device.type != "cpu" and lengths.device.type == "cpu"
    if needs_copy and not torch.compiler.is_compiling():
        torch.ops.crnn_ext.input_lengths_check.default(lengths, logits.shape[0], operator)
    return to_device([lengths], logits.device)[0]


def targets_tensor(value: Targets, samples: int, batched: bool) -> Tensor:
    """Targets, (N, S) padded or 1-D concatenated."""
    targets = index_tensor("targets", value)
    if not batched:
        if targets.dim() != 1:
            raise ValueError(f"targets must be (S,) for unbatched logits, got shape {tuple(targets.shape)}")
        return targets.unsqueeze(0)
    if targets.dim() not in (1, 2) or (targets.dim() == 2 and targets.shape[0] != samples):
        raise ValueError(
            f"targets must be (N={samples}, S) or 1-D concatenated, got shape {tuple(targets.shape)}"
        )
    return targets


def check_cpu_values(operator: str, indices: list[Tensor], frames: int, classes: int, blank: int) -> None:
    """Checks those of targets, input_lengths and target_lengths that are on the CPU, and skips the others."""
    on_cpu = [tensor.device.type == "cpu" for tensor in indices]
    # With a single class no label is valid, so there is no placeholder for targets on a GPU.
    if not any(on_cpu) or (classes == 1 and not on_cpu[0]):
        return
    if not on_cpu[2]:  # without target_lengths the labels of each text cannot be located
        indices, on_cpu[0] = [torch.empty(0, dtype=torch.int64, device="cpu"), *indices[1:]], True
    valid_values = (1 if blank == 0 else 0, 0, 0)
    values = [
        tensor if is_on_cpu else torch.tensor(value, device="cpu").expand(tensor.shape)
        for tensor, is_on_cpu, value in zip(indices, on_cpu, valid_values, strict=True)
    ]
    torch.ops.crnn_ext.targets_check.default(*values, frames, classes, blank, operator)


def longest_target(target_lengths: Tensor, device: torch.device) -> int:
    """The largest target length, by which GPU operators choose kernels; -1 if reading it would synchronize.

    Without it, the operators assume the longest target that the shape of `targets` allows, which is far too
    long for concatenated targets. Also -1 while a call is traced: the value would become a constant of the
    graph, and fake tensors have none.
    """
    if device.type == "cpu" or target_lengths.device.type != "cpu" or target_lengths.numel() == 0:
        return -1
    if torch.compiler.is_compiling() or any(torch._C._get_dispatch_mode(mode) for mode in _TRACING):
        return -1
    return max(int(target_lengths.max()), 0)


def to_device(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on `device`; those on the CPU go to a GPU in one asynchronous copy."""
    if all(tensor.device == device for tensor in tensors):
        return tensors
    on_cpu = [i for i, tensor in enumerate(tensors) if tensor.device.type == "cpu"]
    if device.type != "cuda" or not on_cpu or torch.compiler.is_compiling():
        # A copy to the CPU must be synchronous: its result is read next.
        return [tensor.to(device, non_blocking=device.type != "cpu") for tensor in tensors]
    if torch.cuda.is_current_stream_capturing():
        # The graph would replay the copy after its source has been freed.
        raise ValueError("in a CUDA graph, targets and lengths must be on the GPU, got some on the CPU")
    packed = _pack([tensors[i] for i in on_cpu], pin_memory=True)
    parts = _unpack(packed.to(device, non_blocking=True), [tensors[i].shape for i in on_cpu])
    copied = dict(zip(on_cpu, parts, strict=True))
    return [copied.get(i, tensor).to(device) for i, tensor in enumerate(tensors)]


def _pack(tensors: list[Tensor], *, pin_memory: bool) -> Tensor:
    """All elements in one 1-D tensor. Only a copy from pinned memory is asynchronous."""
    flat = [tensor.reshape(-1).long() for tensor in tensors]
    packed = torch.empty(sum(map(len, flat)), dtype=torch.int64, device="cpu", pin_memory=pin_memory)
    return torch.cat(flat, out=packed)


def _unpack(packed: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = packed.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
