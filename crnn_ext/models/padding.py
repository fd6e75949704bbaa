"""Which columns of padded maps belong to the images, and batch normalisation that counts only those."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class Live(NamedTuple):
    """The columns of maps `(N, C, H, W)` that belong to the images; those behind them are padding.

    `columns` is how many there are, int64 `(N,)`; `mask` is 1 for them and 0 for padding, floating point
    `(N, 1, 1, W)`.
    """

    columns: Tensor
    mask: Tensor

    @classmethod
    def of(cls, columns: Tensor, total: int, dtype: torch.dtype) -> "Live":
        """The first `columns` of `total` columns, with a mask of this dtype."""
        mask = torch.arange(total, device=columns.device) < columns.unsqueeze(1)
        return cls(columns, mask[:, None, None].to(dtype))


def live_batch_norm(layer: nn.BatchNorm2d, maps: Tensor, live: Live) -> Tensor:
    """What `layer` makes of maps in training, its statistics taken over live columns alone."""
    assert layer.running_mean is not None and layer.running_var is not None  # noqa: PT018
    assert layer.num_batches_tracked is not None and layer.momentum is not None  # noqa: PT018
    # In float32 under autocast: a mean over thousands of pixels needs the digits.
    values = maps.to(layer.weight.dtype)
    live_columns = live.columns.sum().clamp(min=1)
    mean, variance = _Moments.apply(values, live.mask / live_columns)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        count = (live_columns * maps.shape[2]).to(variance.dtype)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        layer.num_batches_tracked.add_(1)
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(unbiased, layer.momentum)
    # torch's operator takes mean and variance as constants. Their gradients go through weight and bias, which
    # are changed by what is 1 and 0.
    centre, spread = mean.detach(), variance.detach()
    scale = layer.weight * ((variance + layer.eps).rsqrt() * (spread + layer.eps).sqrt())
    shift = layer.bias - (mean - centre) * (layer.weight * (spread + layer.eps).rsqrt())
    return batch_norm(maps, centre, spread, scale, shift, False, 0.0, layer.eps)


class _Moments(torch.autograd.Function):
    """Mean and variance `(C,)` of maps whose columns `(N, 1, 1, W)` have these shares in them.

    Written as one function because autograd would keep two more tensors of the size of the maps.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        mean = _mean(maps, shares)
        centred = maps - mean[:, None, None]
        ctx.save_for_backward(maps, shares, mean)
        return mean, _mean(centred.square_(), shares)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        maps, shares, mean = ctx.saved_tensors
        # (grad_mean + 2 grad_variance (maps - mean)) / how many
        slope = 2 * grad_variance
        constant = grad_mean - slope * mean
        grad = torch.addcmul(constant[:, None, None], maps, slope[:, None, None])
        return grad.mul_(shares / maps.shape[2]), None


def _mean(maps: Tensor, shares: Tensor) -> Tensor:
    return (maps.mean(2) * shares.squeeze(2)).sum((0, 2))
