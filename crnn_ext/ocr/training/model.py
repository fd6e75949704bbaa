"""The network with its loss, and the batches that it takes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crnn_ext.ocr.checkpoints import Network
from crnn_ext.ocr.data import Batch
from crnn_ext.ocr.data.check import frames_needed
from crnn_ext.text import Charset

Criterion = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Maps logits (T, N, C), targets (N, S), input_lengths (N,) and target_lengths (N,) to losses (N,) in nats.
Loss and gradient are 0 for a line without a valid alignment."""


class EncodedBatch(NamedTuple):
    """A batch with its labels as class indices.

    Attributes:
        images: `(N, channels, height, W)`; N may be 0.
        widths, input_lengths, target_lengths: int64 `(N,)` on the CPU.
        targets: int64 `(N, S)` on the CPU.
        characters: label characters of all feasible lines.
        infeasible: names of the lines with too few frames for their labels.
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
        """Encodes the labels and computes the frames of each line."""
        targets, target_lengths = charset.encode(batch.labels)
        input_lengths = network.output_lengths(batch.widths)
        feasible = [
            frames >= frames_needed(label)
            for frames, label in zip(input_lengths.tolist(), batch.labels, strict=True)
        ]
        return cls(
            images=batch.images,
            widths=batch.widths,
            targets=targets,
            input_lengths=input_lengths,
            target_lengths=target_lengths,
            characters=sum(
                length for length, fits in zip(target_lengths.tolist(), feasible, strict=True) if fits
            ),
            infeasible=[name for name, fits in zip(batch.names, feasible, strict=True) if not fits],
        )


class NetworkWithLoss(nn.Module):
    """The network and its loss as one module for DistributedDataParallel."""

    def __init__(self, network: Network, criterion: Criterion, blank: int) -> None:
        super().__init__()
        self.network = network
        self._criterion = criterion
        self._blank = blank

    def forward(self, batch: EncodedBatch, images: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and the number of frames whose most probable class is the blank.

        Args:
            batch: the batch.
            images: its images on the device of the network.
        """
        if len(images) == 0:
            # No image could be read. The other processes still wait for gradients, which are 0.
            zero = torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum() * 0
            return zero, zero.detach()
        logits = self.network(images, batch.widths)
        loss = self._criterion(logits, batch.targets, batch.input_lengths, batch.target_lengths).sum()
        with torch.no_grad():
            valid = torch.arange(len(logits)).unsqueeze(1) < batch.input_lengths
            blanks = (logits.argmax(-1) == self._blank) & valid.to(logits.device, non_blocking=True)
        return loss, blanks.sum()


def batch_norm_layers(network: Network) -> Iterator[nn.BatchNorm2d]:
    """The batch-norm layers of a network."""
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def batch_norm_buffers(network: Network) -> list[Tensor]:
    """The running statistics of the batch-norm layers, which receive no gradient."""
    return list(network.buffers())
