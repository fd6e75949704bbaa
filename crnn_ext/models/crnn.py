"""The CRNN of Shi, Bai & Yao (2015): convolutions, then bidirectional LSTMs over the columns of the image.

"An End-to-End Trainable Neural Network for Image-based Sequence Recognition", arXiv:1507.05717, in three
variants in use with PyTorch. Parameter names are unchanged, so existing checkpoints load.

torch.export supports all three with dynamic batch size and width from torch 2.13 on. torch.compile breaks
the graph at each LSTM, which runs on its own kernels; `torch._dynamo.config.allow_rnn` traces it, for a
single graph.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from crnn_ext._arguments import check_type

from .autocast import autocast_dtype
from .layers import Columns, ResidualBlock, apply_layers, scaled_channels, windows
from .lstm import BidirectionalLSTM
from .padding import ValidColumns

IMAGE_HEIGHT = 32


class _RecognitionNetwork(nn.Module):
    """Base class of the three networks.

    A subclass assigns its layers in the order of execution and finally calls `_add_recurrent_layers`.
    `forward` and `output_lengths` rely on that order alone.
    """

    rnn: nn.Sequential
    min_width: int

    def __init__(self, imgH: int, nc: int, nclass: int, nh: int, width: float) -> None:  # noqa: N803
        name = type(self).__name__
        if imgH != IMAGE_HEIGHT:
            raise ValueError(
                f"{name}: imgH must be {IMAGE_HEIGHT}, the height that its layers are built for, got {imgH!r}"
            )
        for argument, value, least, why in (
            ("nc", nc, 1, ""),
            ("nclass", nclass, 2, " (the blank and one character)"),
            ("nh", nh, 1, ""),
        ):
            check_type(f"{name}: {argument}", value, Integral, "an int")
            if value < least:
                raise ValueError(f"{name}: {argument} must be at least {least}{why}, got {value}")
        check_type(f"{name}: width", width, (int, float), "a number")
        if not (width > 0 and math.isfinite(width)):
            raise ValueError(f"{name}: width must be finite and above 0, got {width}")
        super().__init__()
        self.imgH = imgH
        self.nc = nc
        self.register_load_state_dict_pre_hook(_drop_module_prefix)  # type: ignore[no-untyped-call]

    def _add_recurrent_layers(self, features: int, nh: int, nclass: int) -> None:
        """Adds the LSTMs and computes `min_width`; `features` is channels times rows of the last map."""
        self.rnn = nn.Sequential(BidirectionalLSTM(features, nh, nh), BidirectionalLSTM(nh, nh, nclass))
        self.min_width = next(columns for columns in itertools.count(1) if self._frames(columns) > 0)

    def _image_layers(self) -> Iterator[nn.Module]:
        return (layer for name, layer in self.named_children() if name != "rnn")

    def forward(self, images: Tensor, widths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Computes the logits of each frame.

        Args:
            images: `(N, nc, 32, W)`, floating point, of the dtype of the parameters, usually in [-1, 1]; W is
                at least `min_width`.
            widths: `(N,)`, integers on any device: the columns of each image, from `min_width` to W. Later
                columns are padding and may hold any value, including NaN. In eval mode, the logits of a
                sample then equal those of the sample alone, up to float32 rounding; under TF32, torch's
                default for cuDNN on a GPU, up to about 1e-3. In training, padding is excluded from the
                statistics of batch normalization. Default: W.

        Returns:
            Logits `(T, N, nclass)`, not normalized; T is `output_lengths([W])`. With `widths`, the logits of
            sample n after frame `output_lengths(widths)[n]` are finite but meaningless.

        Raises:
            TypeError: if `images` are not floating point or `widths` are not integers.
            ValueError: if `images` has the wrong shape or too few columns for one frame, or `widths` has the
                wrong shape or a value out of range. Values on a GPU are not checked, which would synchronize,
                nor are any under torch.compile and torch.export.
        """
        name = type(self).__name__
        if not images.is_floating_point():
            raise TypeError(f"{name}: images must be floating point, got {images.dtype}")
        if images.ndim != 4 or images.shape[1] != self.nc or images.shape[2] != self.imgH:
            raise ValueError(
                f"{name}: images must have shape (N, nc={self.nc}, imgH={self.imgH}, W), "
                f"got {tuple(images.shape)}"
            )
        if images.shape[3] < self.min_width:
            raise ValueError(
                f"{name}: images must be at least {self.min_width} columns wide for one frame, "
                f"but are {images.shape[3]}"
            )
        valid = None
        if widths is not None:
            columns = self._checked_widths(widths, images)
            # The mask has the dtype of the maps that the convolutions compute.
            valid = ValidColumns.of(columns, images.shape[3], autocast_dtype(images) or images.dtype)
            images = images.where(valid.mask > 0, 0)  # not a product: 0 * NaN is NaN
        maps, valid = apply_layers(self._image_layers(), images, valid)
        # (N, channels, rows, T) to (T, N, channels * rows). Without contiguous(), torch.export cannot decide
        # for which T the result is a view.
        frames = maps.permute(3, 0, 1, 2).contiguous().flatten(2)
        if valid is None:
            logits: Tensor = self.rnn(frames)
            return logits
        frame_mask = valid.mask[:, 0, 0].T.contiguous().unsqueeze(2)  # (T, N, 1)
        lower, upper = self.rnn
        logits = upper(lower(frames, frame_mask), frame_mask)
        return logits

    def output_lengths(self, widths: Tensor | Sequence[int] | int) -> Tensor:
        """The number of frames T for images of these widths.

        Args:
            widths: columns of each image: an integer tensor of any shape on any device, a sequence of int, or
                an int.

        Returns:
            int64, with the shape and device of `widths`; 0 for widths below `min_width`, which `forward`
            rejects. A tensor on a GPU causes no synchronization.

        Raises:
            TypeError: if `widths` are not integers.
        """
        return self._frames(self._integers(widths))

    def _integers(self, widths: Tensor | Sequence[int] | int) -> Tensor:
        if not isinstance(widths, Tensor):
            widths = torch.tensor(widths)
            if widths.numel() == 0:  # an empty list becomes a float tensor
                widths = widths.long()
        if widths.is_floating_point() or widths.is_complex() or widths.dtype == torch.bool:
            raise TypeError(f"{type(self).__name__}: widths must be integers, got {widths.dtype}")
        return widths.long()

    def _checked_widths(self, widths: Tensor | Sequence[int], images: Tensor) -> Tensor:
        """The widths, checked, on the device of the images."""
        name = type(self).__name__
        columns = self._integers(widths)
        batch, total = images.shape[0], images.shape[3]
        if columns.shape != (batch,):
            raise ValueError(f"{name}: widths must have shape (N,) = ({batch},), got {tuple(columns.shape)}")
        if columns.is_cpu and not torch.compiler.is_compiling():
            for n, width in enumerate(columns.tolist()):
                if not self.min_width <= width <= total:
                    raise ValueError(
                        f"{name}: widths[{n}] must be in [{self.min_width}, {total}], got {width}"
                    )
        return columns.to(images.device, non_blocking=True)

    def _frames(self, columns: Columns) -> Columns:
        for layer in self._image_layers():
            for window in windows(layer):
                columns = window.columns(columns)
        return columns


class CRNN(_RecognitionNetwork):
    """The paper's network: seven convolutions, three with batch normalization; 8.3 million parameters.

    T = W // 4 + 1.

    Args:
        imgH: height of the images, 32.
        nc: channels of the images, 1 for grayscale.
        nclass: number of classes, including the blank.
        nh: hidden units per direction of each LSTM.
        leakyRelu: use LeakyReLU(0.2) instead of ReLU.
        width: factor on the channels of every convolution, rounded to multiples of 8; 1 is the full network.

    Raises:
        TypeError, ValueError: if an argument is invalid; the message gives its name and value.
    """

    def __init__(
        self,
        imgH: int,  # noqa: N803
        nc: int,
        nclass: int,
        nh: int,
        leakyRelu: bool = False,  # noqa: N803
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__(imgH, nc, nclass, nh, width)
        c64, c128, c256, c512 = scaled_channels(width, 64, 128, 256, 512)
        self.conv1 = _conv3x3(nc, c64)
        self.relu1 = _activation(leakyRelu)
        self.pool1 = nn.MaxPool2d(2)  # 16 rows
        self.conv2 = _conv3x3(c64, c128)
        self.relu2 = _activation(leakyRelu)
        self.pool2 = nn.MaxPool2d(2)  # 8 rows
        self.conv3_1 = _conv3x3(c128, c256)
        self.bn3 = nn.BatchNorm2d(c256)
        self.relu3_1 = _activation(leakyRelu)
        self.conv3_2 = _conv3x3(c256, c256)
        self.relu3_2 = _activation(leakyRelu)
        self.pool3 = _pool_rows()  # 4 rows
        self.conv4_1 = _conv3x3(c256, c512)
        self.bn4 = nn.BatchNorm2d(c512)
        self.relu4_1 = _activation(leakyRelu)
        self.conv4_2 = _conv3x3(c512, c512)
        self.relu4_2 = _activation(leakyRelu)
        self.pool4 = _pool_rows()  # 2 rows
        self.conv5 = nn.Conv2d(c512, c512, 2)  # 1 row
        self.bn5 = nn.BatchNorm2d(c512)
        self.relu5 = _activation(leakyRelu)
        self._add_recurrent_layers(c512, nh, nclass)


class CRNN_v2(_RecognitionNetwork):  # noqa: N801
    """Eight narrower convolutions with batch normalization, two rows to the LSTM; 3.7 million parameters.

    T = W // 4 + 2. Arguments and errors as in `CRNN`.
    """

    def __init__(
        self,
        imgH: int,  # noqa: N803
        nc: int,
        nclass: int,
        nh: int,
        leakyRelu: bool = False,  # noqa: N803
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__(imgH, nc, nclass, nh, width)
        channels = nc
        for stage, pair, pool in (
            (1, (32, 64), nn.MaxPool2d(2)),  # 16 rows
            (2, (64, 128), nn.MaxPool2d(2)),  # 8 rows
            (3, (96, 192), _pool_rows()),  # 4 rows
            (4, (128, 256), _pool_rows()),  # 2 rows
        ):
            for step, outputs in enumerate(scaled_channels(width, *pair), start=1):
                self.add_module(f"conv{stage}_{step}", _conv3x3(channels, outputs))
                self.add_module(f"bn{stage}_{step}", nn.BatchNorm2d(outputs))
                self.add_module(f"relu{stage}_{step}", _activation(leakyRelu))
                channels = outputs
            self.add_module(f"pool{stage}", pool)
        self.bn5 = nn.BatchNorm2d(channels)
        self._add_recurrent_layers(2 * channels, nh, nclass)


class CRNN_res(_RecognitionNetwork):  # noqa: N801
    """Nine residual blocks between two convolutions; 20.8 million parameters.

    T = W / 4, rounded up. Arguments and errors as in `CRNN`, without `leakyRelu`.
    """

    def __init__(
        self,
        imgH: int,  # noqa: N803
        nc: int,
        nclass: int,
        nh: int,
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__(imgH, nc, nclass, nh, width)
        c64, c128, c256, c512 = scaled_channels(width, 64, 128, 256, 512)
        self.conv1 = _conv3x3(nc, c64)
        self.relu1 = nn.ReLU(inplace=True)
        self.res1 = ResidualBlock(c64, c64)
        self.res2_1 = ResidualBlock(c64, c128, stride=(2, 2))  # 16 rows
        self.res2_2 = ResidualBlock(c128, c128)
        self.res3_1 = ResidualBlock(c128, c256, stride=(2, 2))  # 8 rows
        self.res3_2 = ResidualBlock(c256, c256)
        self.res3_3 = ResidualBlock(c256, c256)
        self.res4_1 = ResidualBlock(c256, c512, stride=(2, 1))  # 4 rows
        self.res4_2 = ResidualBlock(c512, c512)
        self.res4_3 = ResidualBlock(c512, c512)
        self.pool = nn.AvgPool2d((2, 2), (2, 1), (0, 1))  # 2 rows
        self.conv5 = nn.Conv2d(c512, c512, 2)  # 1 row
        self.bn5 = nn.BatchNorm2d(c512)
        self.relu5 = nn.ReLU(inplace=True)
        self._add_recurrent_layers(c512, nh, nclass)


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _pool_rows() -> nn.MaxPool2d:
    """Halves the rows and keeps the columns (plus one from padding), so narrow letters keep their frames."""
    return nn.MaxPool2d((2, 2), (2, 1), (0, 1))


def _activation(leaky: bool) -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True) if leaky else nn.ReLU(inplace=True)


def _drop_module_prefix(
    module: nn.Module,
    state_dict: dict[str, Tensor],
    prefix: str,
    local_metadata: Mapping[str, object],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Accepts state dicts saved from a (Distributed)DataParallel wrapper."""
    wrapper_prefix = prefix + "module."
    names = [name for name in state_dict if name.startswith(prefix)]
    if all(name.startswith(wrapper_prefix) for name in names):
        for name in names:
            state_dict[prefix + name.removeprefix(wrapper_prefix)] = state_dict.pop(name)
