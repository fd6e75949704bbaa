"""Which columns of padded maps belong to the images, and batch normalisation that counts only those."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm


class ValidColumns(NamedTuple):
    """The columns of maps `(N, C, H, W)` that belong to the images; those behind them are padding.

    `columns` is how many there are, int64 `(N,)`; `mask` is 1 for them and 0 for padding, floating point
    `(N, 1, 1, W)`.
    """

    columns: Tensor
    mask: Tensor

    @classmethod
    def of(cls, columns: Tensor, total: int, dtype: torch.dtype) -> "ValidColumns":
        """The first `columns` of `total` columns, with a mask of this dtype."""
        mask = torch.arange(total, device=columns.device) < columns.unsqueeze(1)
        return cls(columns, mask[:, None, None].to(dtype))


def masked_batch_norm(layer: nn.BatchNorm2d, maps: Tensor, valid: ValidColumns) -> Tensor:
    """What `layer` makes of maps in training, its statistics taken over valid columns alone."""
    assert layer.running_mean is not None and layer.running_var is not None  # noqa: PT018
    assert layer.num_batches_tracked is not None and layer.momentum is not None  # noqa: PT018
    columns = valid.columns.sum().clamp(min=1)
    normalised, mean, variance = _MaskedBatchNorm.apply(  # type: ignore[no-untyped-call]
        maps, layer.weight, layer.bias, valid.mask.to(layer.weight.dtype) / columns, layer.eps
    )
    with torch.no_grad():
        pixels = (columns * maps.shape[2]).to(variance.dtype)
        layer.num_batches_tracked.add_(1)
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * (pixels / (pixels - 1).clamp(min=1)), layer.momentum)
    return cast(Tensor, normalised)


class _MaskedBatchNorm(torch.autograd.Function):
    """Batch normalisation by mean and variance `(C,)`, in which each column has a share `(N, 1, 1, W)`.

    Written as one function because autograd would keep two more tensors of the size of the maps.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, shares: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # In float32 under autocast: a mean over thousands of pixels needs the digits.
        pixels = maps.to(weight.dtype)
        mean = _mean(pixels, shares)
        variance = _mean((pixels - mean[:, None, None]).square_(), shares)
        ctx.eps = eps
        ctx.save_for_backward(maps, weight, shares, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        return batch_norm(maps, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        maps, weight, shares, mean, variance = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        # With mean and variance as constants, then what goes through them. Some CUDA kernels (for maps of one
        # column, or of more than 2^31 elements) read `inverse` where the others read `variance`.
        grad_maps, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            *(grad, maps, weight, mean, variance, mean, inverse, False, ctx.eps, [True, True, True])
        )
        slope = -weight * inverse.square() * grad_weight
        constant = -weight * inverse * grad_bias - slope * mean
        shares = shares / maps.shape[2]
        grad_maps.addcmul_(maps, shares * slope[:, None, None]).add_(shares * constant[:, None, None])
        return grad_maps, grad_weight, grad_bias, None, None


def _mean(pixels: Tensor, shares: Tensor) -> Tensor:
    return (pixels.mean(2) * shares.squeeze(2)).sum((0, 2))
