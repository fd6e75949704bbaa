"""What the CRNN networks are made of, and how many columns each layer leaves of an image."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Columns = TypeVar("Columns", int, Tensor)


class BidirectionalLSTM(nn.Module):
    """An LSTM read in both directions, then one linear layer on what the two directions say of each frame."""

    def __init__(self, nIn: int, nHidden: int, nOut: int) -> None:  # noqa: N803 (the article's names)
        super().__init__()
        self.rnn = nn.LSTM(nIn, nHidden, bidirectional=True)
        self.embedding = nn.Linear(2 * nHidden, nOut)

    def forward(self, frames: Tensor) -> Tensor:
        """Maps `(T, N, nIn)` to `(T, N, nOut)`."""
        exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        with _symbolic_frames() if exporting else nullcontext():
            both_directions, _ = self.rnn(frames)
        embedded: Tensor = self.embedding(both_directions)
        return embedded


@contextmanager
def _symbolic_frames() -> Iterator[None]:
    """Lets torch.export trace an LSTM with any number of frames.

    The rule by which torch finds the shape of an LSTM's result unrolls its loop, which fixes T to that of the
    example input. torch ships another rule for this purpose, and uses it itself when it exports to ONNX. With
    either, the exported graph holds the one operator `aten.lstm`.
    """
    try:
        from torch.export._patches import register_lstm_while_loop_decomposition
    except ImportError:  # an older torch, where T stays fixed
        yield
        return
    # The operator remembers which rule it has used; without forgetting, the new one would come too late for
    # an LSTM traced before, and stay for those traced after.
    remembered = torch.ops.aten.lstm.input._dispatch_cache
    remembered.clear()
    try:
        with register_lstm_while_loop_decomposition():
            yield
    finally:
        remembered.clear()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (the basic block of He et al., 2016).

    The shortcut is the identity; where the block changes the channels or the size, a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.group1 = nn.Sequential()
        self.group1.add_module("conv1", nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False))
        self.group1.add_module("bn1", nn.BatchNorm2d(outputs))
        self.group1.add_module("relu1", nn.ReLU(inplace=True))
        self.group1.add_module("conv2", nn.Conv2d(outputs, outputs, 3, padding=1, bias=False))
        self.group1.add_module("bn2", nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if inputs != outputs or stride != (1, 1):
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(N, inputs, H, W)` to `(N, outputs, H', W')`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        summed: Tensor = self.relu(self.group1(x) + shortcut)
        return summed


class Window(NamedTuple):
    """The extent of a convolution or pooling along the width of an image, in columns."""

    kernel: int
    stride: int
    padding: int

    def columns(self, columns: Columns) -> Columns:
        """How many columns the layer makes of `columns`: 0 where there are too few of them for it to run."""
        enough = columns >= max(1, self.kernel - 2 * self.padding)
        return ((columns + 2 * self.padding - self.kernel) // self.stride + 1) * enough


def windows(layer: nn.Module) -> Iterator[Window]:
    """The windows that decide the width of a layer's output, in order; none for a layer that keeps it."""
    if isinstance(layer, ResidualBlock):
        for part in layer.group1:
            yield from windows(part)
    elif isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        yield Window(_along_width(layer.kernel_size), _along_width(layer.stride), _along_width(layer.padding))


def _along_width(extent: object) -> int:
    """The second of a layer's (height, width) pair, which torch keeps as one number where both are equal."""
    along = extent[1] if isinstance(extent, tuple) else extent
    assert isinstance(along, int)
    return along


def scaled_channels(width: float, *channels: int) -> list[int]:
    """`width` times each of `channels`, rounded to a multiple of 8 (kernels like it), at least 8."""
    return [max(8, 8 * round(width * count / 8)) for count in channels]
