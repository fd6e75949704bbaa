"""The bidirectional LSTM that reads the frames of an image, padded or not."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# Inputs that close the LSTM's input gates at padding: as many as keep the width a multiple of 8 (kernels like
# it), and together so far below 0 that the gate is exactly 0 in any floating-point type.
_GATE_INPUTS = 8
_CLOSED = -1000.0


class BidirectionalLSTM(nn.Module):
    """An LSTM read in both directions, then one linear layer on what the two directions say of each frame."""

    def __init__(self, nIn: int, nHidden: int, nOut: int) -> None:  # noqa: N803 (the article's names)
        super().__init__()
        self.rnn = _PaddedLSTM(nIn, nHidden, bidirectional=True)
        self.embedding = nn.Linear(2 * nHidden, nOut)

    def forward(self, frames: Tensor, live: Tensor | None = None) -> Tensor:
        """Maps `(T, N, nIn)` to `(T, N, nOut)`; `live` `(T, N, 1)` is 1 for frames and 0 for padding."""
        exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        with symbolic_frames() if exporting else nullcontext():
            both_directions, _ = self.rnn(frames) if live is None else self.rnn.read_padded(frames, live)
        embedded: Tensor = self.embedding(both_directions)
        return embedded


class _PaddedLSTM(nn.LSTM):
    """nn.LSTM of one layer and two directions, which can pass over padding behind the frames of a sample.

    The backward direction comes through the padding first. With its input gates closed there, it stays in
    its initial state of zeros until the sample's last frame. A few more inputs, with weights for the input
    gates alone, do that: so both directions stay one call of torch's kernel, and no sample is sorted or
    turned around. What the forward direction does behind the last frame reaches no frame.
    """

    def read_padded(self, frames: Tensor, live: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `forward`; `live` is 1 for frames and 0 for padding."""
        gates = ((1 - live) * _CLOSED).to(frames.dtype).expand(-1, -1, _GATE_INPUTS)
        state = frames.new_zeros(2, frames.shape[1], self.hidden_size)
        output, hidden, cell = torch.lstm(
            torch.cat([frames, gates], 2),
            [state, state],
            self._gated_weights(),
            True,  # biases
            1,  # layer
            0.0,  # dropout
            self.training,
            True,  # both directions
            False,  # frames first
        )
        return output, (hidden, cell)

    def _gated_weights(self) -> list[Tensor]:
        """The weights, with those of the added inputs, in torch's order.

        They lie in one buffer in cuDNN's order, which is all matrices, then all biases, so that cuDNN reads
        them where they are, as it does the parameters of nn.LSTM.
        """
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        forward, backward = (
            [getattr(self, f"{name}_l0{direction}") for name in names] for direction in ("", "_reverse")
        )
        # The rows are those of the input gate, the forget gate, the cell and the output gate.
        gates = pad(forward[0].new_ones(self.hidden_size, _GATE_INPUTS), (0, 0, 0, 3 * self.hidden_size))
        for weights in (forward, backward):
            weights[0] = torch.cat([weights[0], gates], 1)
        parts = forward[:2] + backward[:2] + forward[2:] + backward[2:]
        buffer = torch.cat([part.flatten() for part in parts])
        views = buffer.split([part.numel() for part in parts])
        placed = [view.view(part.shape) for view, part in zip(views, parts, strict=True)]
        return placed[:2] + placed[4:6] + placed[2:4] + placed[6:]


@contextmanager
def symbolic_frames() -> Iterator[None]:
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
