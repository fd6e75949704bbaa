"""Masks of the valid columns of padded feature maps, and batch normalization over them alone."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm


class ValidColumns(NamedTuple):
    """The valid columns of padded feature maps `(N, C, H, W)`; later columns are padding.

    `columns`: number of valid columns, int64 `(N,)`. `mask`: 1 for valid columns, 0 for padding, floating
    point `(N, 1, 1, W)`.
    """

    columns: Tensor
    mask: Tensor

    @classmethod
    def of(cls, columns: Tensor, total: int, dtype: torch.dtype) -> "ValidColumns":
        """Marks the first `columns` of `total` columns as valid, with a mask of this dtype."""
        mask = torch.arange(total, device=columns.device) < columns.unsqueeze(1)
        return cls(columns, mask[:, None, None].to(dtype))


def masked_batch_norm(layer: nn.BatchNorm2d, maps: Tensor, valid: ValidColumns) -> Tensor:
    """The output of `layer` in training, with statistics over valid columns only."""
    assert layer.running_mean is not None and layer.running_var is not None  # noqa: PT018
    assert layer.num_batches_tracked is not None and layer.momentum is not None  # noqa: PT018
    columns = valid.columns.sum().clamp(min=1)
    normalized, mean, variance = _MaskedBatchNorm.apply(  # type: ignore[no-untyped-call]
        maps, layer.weight, layer.bias, valid.mask.to(layer.weight.dtype) / columns, layer.eps
    )
    with torch.no_grad():
        pixels = (columns * maps.shape[2]).to(variance.dtype)
        layer.num_batches_tracked.add_(1)
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * (pixels / (pixels - 1).clamp(min=1)), layer.momentum)
    return cast(Tensor, normalized)


class _MaskedBatchNorm(torch.autograd.Function):
    """Batch normalization whose mean and variance `(C,)` weight each column by `shares` `(N, 1, 1, W)`.

    One function, because autograd would save two more tensors of the size of the maps.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, shares: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # In float32 under autocast: a mean over thousands of pixels needs the precision.
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
        # First the gradient for constant mean and variance, then the part through them. Some CUDA kernels
        # (for maps of one column, or of more than 2^31 elements) read `inverse` where others read `variance`.
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
