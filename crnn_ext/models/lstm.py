"""The bidirectional LSTM that reads the frames of an image, padded or not."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .autocast import autocast_dtype

# Inputs that close the LSTM's input gates at padding: as many as keep the width a multiple of 8 (kernels like
# it), and together so far below 0 that the gate is exactly 0 in any floating-point type.
_GATE_INPUTS = 8
_CLOSED = -1000.0

# The first cuDNN, and the first compute capability, whose LSTMs take bfloat16.
_BFLOAT16_CUDNN = 91300
_BFLOAT16_CAPABILITY = (8, 0)


class BidirectionalLSTM(nn.Module):
    """An LSTM read in both directions, then one linear layer on what the two directions say of each frame."""

    def __init__(self, nIn: int, nHidden: int, nOut: int) -> None:  # noqa: N803 (the article's names)
        super().__init__()
        self.rnn = _PaddedLSTM(nIn, nHidden, bidirectional=True)
        self.embedding = nn.Linear(2 * nHidden, nOut)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps `(T, N, nIn)` to `(T, N, nOut)`; `mask` `(T, N, 1)` is 1 for frames and 0 for padding."""
        exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        with symbolic_frames() if exporting else nullcontext():
            both_directions = self._read(frames, mask)
        embedded: Tensor = self.embedding(both_directions)
        return embedded

    def _read(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """What the two directions say of each frame, `(T, N, 2 nHidden)`.

        Under bfloat16 autocast torch hands cuDNN's LSTM input and weights in float16, whose range most
        gradients are below. The casts are made here, and autocast is off for the LSTM.
        """
        if autocast_dtype(frames) != torch.bfloat16:
            return self.rnn.read(frames, mask)
        dtype = torch.bfloat16 if _lstm_takes_bfloat16(frames.device) else torch.float32
        with torch.autocast(frames.device.type, enabled=False):
            return self.rnn.read(frames.to(dtype), mask, dtype)


class _PaddedLSTM(nn.LSTM):
    """nn.LSTM of one layer and two directions, which can pass over padding behind the frames of a sample.

    The backward direction comes through the padding first. With its input gates closed there, it stays in
    its initial state of zeros until the sample's last frame. A few more inputs, with weights for the input
    gates alone, do that: so both directions stay one call of torch's kernel, and no sample is sorted or
    turned around. What the forward direction does behind the last frame reaches no frame.
    """

    def __setstate__(self, state: Any) -> None:
        """Of a copy, whose weights would otherwise lie apart, so that cuDNN packs them at every call."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.flatten_parameters()

    def read(self, frames: Tensor, mask: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """What the two directions say of each frame.

        Args:
            frames: `(T, N, input_size)`.
            mask: `(T, N, 1)`, 1 for frames and 0 for padding; None: there is no padding.
            dtype: of the frames, to which the weights are cast; None: as they are.
        """
        if mask is None and dtype in (None, self.weight_ih_l0.dtype):
            output: Tensor = self(frames)[0]
            return output
        weights = self._weights_in_one_buffer(dtype, gated=mask is not None)
        if mask is not None:
            gates = ((1 - mask) * _CLOSED).to(frames.dtype).expand(-1, -1, _GATE_INPUTS)
            frames = torch.cat([frames, gates], 2)
        state = frames.new_zeros(2, frames.shape[1], self.hidden_size)
        output, _, _ = torch.lstm(
            frames,
            [state, state],
            weights,
            True,  # biases
            1,  # layer
            0.0,  # dropout
            self.training,
            True,  # both directions
            False,  # frames first
        )
        return output

    def _weights_in_one_buffer(self, dtype: torch.dtype | None, gated: bool) -> list[Tensor]:
        """The weights in torch's order, cast to this dtype; `gated` with those of the added inputs.

        They lie in one buffer in cuDNN's order, which is all matrices, then all biases, so that cuDNN reads
        them where they are, as it does the parameters of nn.LSTM.
        """
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        forward, backward = (
            [getattr(self, f"{name}_l0{direction}") for name in names] for direction in ("", "_reverse")
        )
        if gated:
            # The rows are those of the input gate, the forget gate, the cell and the output gate.
            gates = pad(forward[0].new_ones(self.hidden_size, _GATE_INPUTS), (0, 0, 0, 3 * self.hidden_size))
            for weights in (forward, backward):
                weights[0] = torch.cat([weights[0], gates], 1)
        parts = forward[:2] + backward[:2] + forward[2:] + backward[2:]
        buffer = torch.cat([part.flatten() for part in parts]).to(dtype or forward[0].dtype)
        views = buffer.split([part.numel() for part in parts])
        placed = [view.view(part.shape) for view, part in zip(views, parts, strict=True)]
        return placed[:2] + placed[4:6] + placed[2:4] + placed[6:]


def _lstm_takes_bfloat16(device: torch.device) -> bool:
    """Whether torch's fast LSTM of this device takes bfloat16; on a GPU the other is one kernel a frame."""
    if device.type != "cuda":
        return True
    version = torch.backends.cudnn.version() if torch.backends.cudnn.enabled else None
    return (version or 0) >= _BFLOAT16_CUDNN and (
        torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    )


# As torch.compiler.assume_constant_result does, which would import Dynamo: two seconds for every program.
_lstm_takes_bfloat16._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextmanager
def symbolic_frames() -> Iterator[None]:
    """Lets torch.export trace an LSTM with any number of frames.

    The rule by which torch finds the shape of an LSTM's result unrolls its loop, which fixes T to that of the
    example input. `_shapes` takes its place meanwhile. With either, the exported graph holds the one operator
    `aten.lstm`.
    """
    lstm, key = torch.ops.aten.lstm.input, torch._C.DispatchKey.CompositeImplicitAutograd
    before = lstm.py_kernels.get(key)
    # The operator remembers which rule it has used; without forgetting, the new one would come too late for
    # an LSTM traced before, and stay for those traced after.
    lstm._dispatch_cache.clear()
    lstm.py_kernels[key] = _shapes
    try:
        yield
    finally:
        lstm._dispatch_cache.clear()
        lstm.py_kernels.pop(key)
        if before is not None:
            lstm.py_kernels[key] = before


def _shapes(frames: Tensor, state: list[Tensor], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Tensors like the results of an LSTM of one layer and two directions."""
    hidden, cell = state
    output = frames.new_empty(*frames.shape[:2], 2 * hidden.shape[2])
    return output, torch.empty_like(hidden), torch.empty_like(cell)
