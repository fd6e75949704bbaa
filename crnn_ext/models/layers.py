"""Building blocks of the CRNN networks, masked for padded images, and their output widths."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from .padding import ValidColumns, masked_batch_norm

Columns = TypeVar("Columns", int, Tensor)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (the basic block of He et al., 2016).

    The shortcut is the identity, or a 1x1 convolution if the block changes the channels or the size.
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
        shortcut = x if self.downsample is None else apply_layers(self.downsample, x, valid)[0]
        group, valid = apply_layers(self.group1, x, valid)
        return apply_layers([self.relu], group + shortcut, valid)[0]


def apply_layers(
    layers: Iterable[nn.Module], maps: Tensor, valid: ValidColumns | None
) -> tuple[Tensor, ValidColumns | None]:
    """Applies layers in order; returns the maps and their valid columns.

    Without `valid`, all columns are valid. With it, each layer sees an image as if it were alone: padding
    columns of `maps` are 0, and are set to 0 again after every pooling and every activation; an activation
    follows each convolution. Layers pad with 0 themselves, except for max pooling.
    """
    for layer in layers:
        if valid is None:
            maps = layer(maps)
        else:
            maps, valid = _apply_masked(layer, maps, valid)
    return maps, valid


def _apply_masked(layer: nn.Module, maps: Tensor, valid: ValidColumns) -> tuple[Tensor, ValidColumns]:
    """Applies one layer to maps with padding columns."""
    if isinstance(layer, nn.MaxPool2d) and _along_width(layer.padding):
        # Max pooling pads with -inf. The lowest value has the same effect and is finite.
        lowest = maps.detach().amin((1, 2, 3), keepdim=True)
        maps = maps + (1 - valid.mask) * lowest
    elif isinstance(layer, nn.ReLU | nn.LeakyReLU):
        # Before the activation, whose backward pass needs its result. In place, like the activation itself.
        maps = maps.mul_(valid.mask)
    if isinstance(layer, nn.BatchNorm2d) and layer.training:
        maps = masked_batch_norm(layer, maps, valid)
    elif isinstance(layer, ResidualBlock):
        maps = layer(maps, valid)
    else:
        maps = layer(maps)
    valid = _valid_after(layer, maps, valid)
    if isinstance(layer, nn.MaxPool2d):
        maps = maps.mul_(valid.mask)  # the first window of the padding may have seen a valid column
    return maps, valid


def _valid_after(layer: nn.Module, maps: Tensor, valid: ValidColumns) -> ValidColumns:
    """The valid columns of `maps`, the output of `layer`."""
    columns = valid.columns
    for window in windows(layer):
        columns = window.columns(columns)
    return valid if columns is valid.columns else ValidColumns.of(columns, maps.shape[3], valid.mask.dtype)


class Window(NamedTuple):
    """The window of a convolution or pooling along the width of an image, in columns."""

    kernel: int
    stride: int
    padding: int

    def columns(self, columns: Columns) -> Columns:
        """The output columns for so many input columns; 0 if they are too few for the layer."""
        enough = columns >= max(1, self.kernel - 2 * self.padding)
        return ((columns + 2 * self.padding - self.kernel) // self.stride + 1) * enough

    def keeps_columns(self) -> bool:
        """Whether the layer preserves the number of columns."""
        return self.stride == 1 and self.kernel == 2 * self.padding + 1


def windows(layer: nn.Module) -> Iterator[Window]:
    """The windows of a layer that change the number of columns, in order."""
    if isinstance(layer, ResidualBlock):
        for part in layer.group1:
            yield from windows(part)
    elif isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        window = Window(*map(_along_width, (layer.kernel_size, layer.stride, layer.padding)))
        if not window.keeps_columns():
            yield window


def _along_width(extent: object) -> int:
    """The width of a layer's (height, width) pair, which torch stores as one number if both are equal."""
    width = extent[1] if isinstance(extent, tuple) else extent
    assert isinstance(width, int)
    return width


def scaled_channels(width: float, *channels: int) -> list[int]:
    """`width` times each of `channels`, rounded to a multiple of 8 (for fast kernels), at least 8."""
    return [max(8, 8 * round(width * count / 8)) for count in channels]
