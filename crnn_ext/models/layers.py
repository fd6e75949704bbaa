"""What the CRNN networks are made of, and how many columns each layer leaves of an image."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from .padding import ValidColumns, masked_batch_norm

Columns = TypeVar("Columns", int, Tensor)


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

    def forward(self, x: Tensor, valid: ValidColumns | None = None) -> Tensor:
        """Maps `(N, inputs, H, W)` to `(N, outputs, H', W')`."""
        shortcut = x if self.downsample is None else read(self.downsample, x, valid)[0]
        group, valid = read(self.group1, x, valid)
        return read([self.relu], group + shortcut, valid)[0]


def read(
    layers: Iterable[nn.Module], maps: Tensor, valid: ValidColumns | None
) -> tuple[Tensor, ValidColumns | None]:
    """Passes maps through layers in order, and says which columns are valid behind them.

    Without `valid`, all are. With it, each layer sees of an image its valid columns, padded as if it were
    alone: padding is 0 in `maps`, and again after every pooling and every activation, one of which follows
    each convolution. 0 is what layers pad with themselves, but for max pooling.
    """
    for layer in layers:
        if valid is None:
            maps = layer(maps)
        else:
            maps, valid = _apply_masked(layer, maps, valid)
    return maps, valid


def _apply_masked(layer: nn.Module, maps: Tensor, valid: ValidColumns) -> tuple[Tensor, ValidColumns]:
    """Passes maps through one layer of `read`."""
    if isinstance(layer, nn.MaxPool2d) and _along_width(layer.padding):
        # It pads with -inf. The lowest value does as well, and stays finite.
        lowest = maps.detach().amin((1, 2, 3), keepdim=True)
        maps = maps + (1 - valid.mask) * lowest
    elif isinstance(layer, nn.ReLU | nn.LeakyReLU):
        # Before the activation, whose result the backward pass needs. In place, as the activation itself.
        maps = maps.mul_(valid.mask)
    if isinstance(layer, nn.BatchNorm2d) and layer.training:
        maps = masked_batch_norm(layer, maps, valid)
    elif isinstance(layer, ResidualBlock):
        maps = layer(maps, valid)
    else:
        maps = layer(maps)
    valid = _valid_after(layer, maps, valid)
    if isinstance(layer, nn.MaxPool2d):
        maps = maps.mul_(valid.mask)  # the first window of padding may have held a valid column
    return maps, valid


def _valid_after(layer: nn.Module, maps: Tensor, valid: ValidColumns) -> ValidColumns:
    """Which columns are valid in the maps that `layer` has made."""
    columns = valid.columns
    for window in windows(layer):
        columns = window.columns(columns)
    return valid if columns is valid.columns else ValidColumns.of(columns, maps.shape[3], valid.mask.dtype)


class Window(NamedTuple):
    """The extent of a convolution or pooling along the width of an image, in columns."""

    kernel: int
    stride: int
    padding: int

    def columns(self, columns: Columns) -> Columns:
        """How many columns the layer makes of `columns`: 0 where there are too few of them for it to run."""
        enough = columns >= max(1, self.kernel - 2 * self.padding)
        return ((columns + 2 * self.padding - self.kernel) // self.stride + 1) * enough

    def keeps_columns(self) -> bool:
        """Whether the layer makes as many columns as it reads."""
        return self.stride == 1 and self.kernel == 2 * self.padding + 1


def windows(layer: nn.Module) -> Iterator[Window]:
    """The windows that decide the width of a layer's output, in order; none for a layer that keeps it."""
    if isinstance(layer, ResidualBlock):
        for part in layer.group1:
            yield from windows(part)
    elif isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        window = Window(*map(_along_width, (layer.kernel_size, layer.stride, layer.padding)))
        if not window.keeps_columns():
            yield window


def _along_width(extent: object) -> int:
    """The second of a layer's (height, width) pair, which torch keeps as one number where both are equal."""
    along = extent[1] if isinstance(extent, tuple) else extent
    assert isinstance(along, int)
    return along


def scaled_channels(width: float, *channels: int) -> list[int]:
    """`width` times each of `channels`, rounded to a multiple of 8 (kernels like it), at least 8."""
    return [max(8, 8 * round(width * count / 8)) for count in channels]
