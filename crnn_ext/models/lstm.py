"""Bidirectional LSTM over the frames of images, with or without padding."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .autocast import autocast_dtype

# Extra inputs that close the LSTM's input gates at padding. Eight, to keep the width a multiple of 8 for fast
# kernels; their sum is so far below 0 that the gate is exactly 0 in every floating-point type.
_GATE_INPUTS = 8
_CLOSED = -1000.0

# The oldest cuDNN and the lowest compute capability with bfloat16 LSTMs.
_BFLOAT16_CUDNN = 91300
_BFLOAT16_CAPABILITY = (8, 0)


class BidirectionalLSTM(nn.Module):
    """A bidirectional LSTM, then a linear layer on the concatenated outputs of both directions."""

    def __init__(self, nIn: int, nHidden: int, nOut: int) -> None:  # noqa: N803 (the paper's names)
        super().__init__()
        self.rnn = _MaskedLSTM(nIn, nHidden, bidirectional=True)
        self.embedding = nn.Linear(2 * nHidden, nOut)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps `(T, N, nIn)` to `(T, N, nOut)`; `mask` `(T, N, 1)` is 1 for frames and 0 for padding."""
        exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        with dynamic_frame_count() if exporting else nullcontext():
            outputs = self._run_lstm(frames, mask)
        embedded: Tensor = self.embedding(outputs)
        return embedded

    def _run_lstm(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """The outputs of both directions, `(T, N, 2 nHidden)`.

        Under bfloat16 autocast, torch casts the input and weights of cuDNN's LSTM to float16, in which most
        gradients underflow. So the casts are done here, with autocast disabled.
        """
        if autocast_dtype(frames) != torch.bfloat16:
            return self.rnn.run(frames, mask)
        dtype = torch.bfloat16 if _lstm_takes_bfloat16(frames.device) else torch.float32
        with torch.autocast(frames.device.type, enabled=False):
            return self.rnn.run(frames.to(dtype), mask, dtype)


class _MaskedLSTM(nn.LSTM):
    """A one-layer bidirectional nn.LSTM that can ignore padding after the frames of a sample.

    The backward direction passes the padding first. Its input gates are closed there, so it stays in its
    initial state of zeros until the sample's last frame. Extra inputs with weights for the input gates alone
    close them. Thus both directions remain one call of torch's kernel, and samples need not be sorted or
    reversed. The forward direction passes the padding last, which affects no frame.
    """

    def __setstate__(self, state: Any) -> None:
        """Restores a copy with its weights in one buffer; otherwise cuDNN would pack them at every call."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.flatten_parameters()

    def run(self, frames: Tensor, mask: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """The outputs of both directions.

        Args:
            frames: `(T, N, input_size)`.
            mask: `(T, N, 1)`, 1 for frames and 0 for padding; None: no padding.
            dtype: the dtype of `frames`, to which the weights are cast; None: no cast.
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
            1,  # layers
            0.0,  # dropout
            self.training,
            True,  # bidirectional
            False,  # batch_first
        )
        return output

    def _weights_in_one_buffer(self, dtype: torch.dtype | None, gated: bool) -> list[Tensor]:
        """The weights in torch's order, cast to `dtype`; `gated` adds the weights of the extra inputs.

        They are views of one buffer in cuDNN's order (all matrices, then all biases), so cuDNN reads them in
        place, like the parameters of nn.LSTM.
        """
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        forward, backward = (
            [getattr(self, f"{name}_l0{direction}") for name in names] for direction in ("", "_reverse")
        )
        if gated:
            # Rows: input gate, forget gate, cell, output gate.
            gates = pad(forward[0].new_ones(self.hidden_size, _GATE_INPUTS), (0, 0, 0, 3 * self.hidden_size))
            for weights in (forward, backward):
                weights[0] = torch.cat([weights[0], gates], 1)
        parts = forward[:2] + backward[:2] + forward[2:] + backward[2:]
        buffer = torch.cat([part.flatten() for part in parts]).to(dtype or forward[0].dtype)
        views = buffer.split([part.numel() for part in parts])
        placed = [view.view(part.shape) for view, part in zip(views, parts, strict=True)]
        return placed[:2] + placed[4:6] + placed[2:4] + placed[6:]


def _lstm_takes_bfloat16(device: torch.device) -> bool:
    """Whether the device's fast LSTM supports bfloat16; a GPU's slow LSTM launches one kernel per frame."""
    if device.type != "cuda":
        return True
    version = torch.backends.cudnn.version() if torch.backends.cudnn.enabled else None
    return (version or 0) >= _BFLOAT16_CUDNN and (
        torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    )


# What torch.compiler.assume_constant_result does, without importing Dynamo, which takes two seconds.
_lstm_takes_bfloat16._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextmanager
def dynamic_frame_count() -> Iterator[None]:
    """Lets torch.export trace an LSTM with a dynamic number of frames.

    torch's shape rule for an LSTM unrolls its loop, which fixes T to that of the example input. `_fake_lstm`
    replaces it meanwhile. Either way, the exported graph holds the single operator `aten.lstm`.
    """
    lstm, key = torch.ops.aten.lstm.input, torch._C.DispatchKey.CompositeImplicitAutograd
    previous = lstm.py_kernels.get(key)
    # The operator caches its rule. Without clearing, an LSTM traced earlier would not get the new rule, and
    # later ones would keep it.
    lstm._dispatch_cache.clear()
    lstm.py_kernels[key] = _fake_lstm
    try:
        yield
    finally:
        lstm._dispatch_cache.clear()
        lstm.py_kernels.pop(key)
        if previous is not None:
            lstm.py_kernels[key] = previous


def _fake_lstm(frames: Tensor, state: list[Tensor], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Empty tensors with the shapes of the results of a one-layer bidirectional LSTM."""
    hidden, cell = state
    output = frames.new_empty(*frames.shape[:2], 2 * hidden.shape[2])
    return output, torch.empty_like(hidden), torch.empty_like(cell)
