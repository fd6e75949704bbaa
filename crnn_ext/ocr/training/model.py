"""The network together with its loss, and the moving average of its weights."""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crnn_ext.ocr.checkpoints import Network
from crnn_ext.ocr.data import Batch
from crnn_ext.ocr.data.check import frames_needed
from crnn_ext.text import Charset

Criterion = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From logits (T, N, C), targets (N, S), input_lengths (N,) and target_lengths (N,) to losses (N,), in nats;
loss and gradient are 0 for a line that no alignment fits."""


class EncodedBatch(NamedTuple):
    """A batch on its way to the network.

    Attributes:
        images: `(N, channels, height, W)`; N may be 0.
        widths, input_lengths, target_lengths: int64 `(N,)` on the CPU.
        targets: int64 `(N, S)` on the CPU.
        characters: of the labels of all lines that can be trained on.
        infeasible: names of the others.
    """

    images: Tensor
    widths: Tensor
    targets: Tensor
    input_lengths: Tensor
    target_lengths: Tensor
    characters: int
    infeasible: list[str]

    @classmethod
    def from_batch(cls, batch: Batch, charset: Charset, network: Network) -> "EncodedBatch":
        """The batch as the network and the loss take it."""
        targets, target_lengths = charset.encode(batch.labels)
        frames = network.output_lengths(batch.widths)
        feasible = [
            count >= frames_needed(label) for count, label in zip(frames.tolist(), batch.labels, strict=True)
        ]
        return cls(
            images=batch.images,
            widths=batch.widths,
            targets=targets,
            input_lengths=frames,
            target_lengths=target_lengths,
            characters=sum(
                length for length, fits in zip(target_lengths.tolist(), feasible, strict=True) if fits
            ),
            infeasible=[name for name, fits in zip(batch.names, feasible, strict=True) if not fits],
        )


class NetworkWithLoss(nn.Module):
    """From an encoded batch to the sum of its losses, so that DistributedDataParallel sees one module."""

    def __init__(self, network: Network, criterion: Criterion, blank: int) -> None:
        super().__init__()
        self.network = network
        self._criterion = criterion
        self._blank = blank

    def forward(self, batch: EncodedBatch, images: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and in how many frames the blank is the most probable class.

        Args:
            batch: the lines.
            images: those of the batch, on the device of the network.
        """
        if len(images) == 0:
            # Nothing could be read. The gradients are 0, which the other processes wait for.
            nothing = torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum() * 0
            return nothing, nothing.detach()
        logits = self.network(images, batch.widths)
        loss = self._criterion(logits, batch.targets, batch.input_lengths, batch.target_lengths).sum()
        with torch.no_grad():
            live = torch.arange(len(logits)).unsqueeze(1) < batch.input_lengths
            blanks = (logits.argmax(-1) == self._blank) & live.to(logits.device, non_blocking=True)
        return loss, blanks.sum()


class ExponentialMovingAverage:
    """A network whose weights and statistics are the average of those of another along its way.

    It forgets what is 1 / (1 - decay) steps old, and faster at the beginning, when the average of n steps is
    that of about n / 10: the weights that a network begins with tell nothing. Unlike torch's AveragedModel it
    never waits for a GPU, since the count stays on the CPU.

    Attributes:
        network: the average.
        count: int64, how many steps it has seen.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.count = torch.tensor(0)
        self._decay = decay

    def update(self, network: Network) -> None:
        """Takes another step of the network in."""
        count = int(self.count)
        weight = 1 - min(self._decay, count / (count + 9))
        averages, currents = self.network.state_dict().values(), network.state_dict().values()
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, weight)
            else:
                average.copy_(current)
        self.count += 1


def batch_norm_layers(network: Network) -> Iterator[nn.BatchNorm2d]:
    """The layers of batch normalisation."""
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def batch_norm_buffers(network: Network) -> list[Tensor]:
    """The running statistics of batch normalisation, which no gradient reaches."""
    return list(network.buffers())
