"""Fake kernels and autograd formulas of the operators.

The schemas and kernels are in `csrc/`, one folder per operator.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from crnn_ext._load import load_libraries

load_libraries()

_ctc_loss = torch.ops.crnn_ext.ctc_loss.default
_ctc_loss_backward = torch.ops.crnn_ext.ctc_loss_backward.default


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of computations, losses and scores for inputs of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.register_fake("crnn_ext::ctc_loss")
def _(
    logits: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    reduction: int,
    zero_infinity: bool,
    normalize: bool,
    validate: bool,
    with_grad: bool,
    longest_target: int = -1,
) -> tuple[Tensor, Tensor]:
    frames, samples, _ = logits.shape
    dtype = compute_dtype(logits.dtype)
    loss = logits.new_empty((samples,) if reduction == 0 else (), dtype=dtype)
    saved = frames * (2 * samples + targets.numel()) if with_grad else 0
    return loss, logits.new_empty((saved,), dtype=dtype)


@torch.library.register_fake("crnn_ext::ctc_loss_backward")
def _(grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


@torch.library.register_fake("crnn_ext::greedy_decode")
def _(logits: Tensor, input_lengths: Tensor, blank: int, normalize: bool) -> tuple[Tensor, ...]:
    frames, samples, _ = logits.shape
    dtype = compute_dtype(logits.dtype)

    def new(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return logits.new_empty(shape, dtype=dtype)

    spans = new(samples, frames), new(samples, frames)
    return (
        new(samples, frames),
        new(samples),
        new(samples, dtype=dtype),
        *spans,
        new(samples, frames, dtype=dtype),
    )


@torch.library.register_fake("crnn_ext::beam_search")
def _(
    logits: Tensor, input_lengths: Tensor, blank: int, normalize: bool, beam_size: int, nbest: int, *_: Any
) -> tuple[Tensor, ...]:
    frames, samples = logits.shape[:2]
    dtype = compute_dtype(logits.dtype)
    tokens = logits.new_empty((samples, nbest, frames), dtype=torch.int64)
    lengths = logits.new_empty((samples, nbest), dtype=torch.int64)
    scores = logits.new_empty((samples, nbest), dtype=dtype)
    return tokens, lengths, scores, torch.empty_like(scores)


@torch.library.register_fake("crnn_ext::align")
def _(
    logits: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    normalize: bool,
    longest_target: int = -1,
) -> tuple[Tensor, ...]:
    texts, frames = target_lengths.shape[0], logits.shape[0]
    columns = targets.shape[1] if targets.dim() == 2 else torch.sym_min(targets.shape[0], frames)
    scores = logits.new_empty((texts,), dtype=compute_dtype(logits.dtype))
    spans = [logits.new_empty((texts, columns), dtype=torch.int64) for _ in range(3)]
    tokens = logits.new_empty((texts, frames), dtype=torch.int64)
    return tokens, scores, *spans, scores.new_empty((texts, columns))


@torch.library.register_fake("crnn_ext::log_probability")
def _(logits: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, *_: Any) -> Tensor:
    return logits.new_empty((target_lengths.shape[0],), dtype=compute_dtype(logits.dtype))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, input_lengths, target_lengths, blank, reduction, _, normalize, _, _, longest = inputs
    saved = output[1]
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, targets, input_lengths, target_lengths, saved)
    ctx.options = (blank, reduction, normalize, longest)


def _backward(
    ctx: Any, grad_loss: Tensor | None, _: None, guard: Callable[[], Any] = nullcontext
) -> tuple[Tensor | None, ...]:
    gradient = None
    if grad_loss is not None:
        # Outside the guard: unpacking hooks, such as those of activation checkpointing, need autograd.
        saved = ctx.saved_tensors
        with guard():
            gradient = _ctc_loss_backward(grad_loss, *saved, *ctx.options)
    return (gradient, *[None] * 10)


def _no_second_derivative(*_: Any) -> None:
    raise RuntimeError("ctc_loss: the gradient is not differentiable, so double backward is not supported")


torch.library.register_autograd("crnn_ext::ctc_loss", _backward, setup_context=_setup_context)
# Without this, the derivative of a gradient penalty would silently lack this part.
torch.library.register_autograd("crnn_ext::ctc_loss_backward", _no_second_derivative)


# Calls under this guard go straight to the kernels. torch's own code for registered derivatives uses it, too.
_BelowAutograd = torch._C._AutoDispatchBelowAutograd


class _EagerCTCLoss(torch.autograd.Function):
    """The registered derivative for eager code, at half the call overhead."""

    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Any) -> tuple[Tensor, Tensor]:
        with _BelowAutograd():
            output: tuple[Tensor, Tensor] = _ctc_loss(*inputs)
        # Not a method `setup_context`: with one, torch inspects signatures at every call.
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise NotImplementedError("ctc_loss: forward-mode differentiation is not supported")

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, grad_saved: None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # with create_graph=True: a second derivative would need the graph
            return _backward(ctx, grad_loss, grad_saved)
        return _backward(ctx, grad_loss, grad_saved, _BelowAutograd)


def ctc_loss(*inputs: Any) -> Tensor:
    """The loss of `crnn_ext::ctc_loss`, without its saved tensor; differentiable in its first input."""
    with_grad = inputs[9]
    call: Callable[..., Any] = _ctc_loss
    # Also under forward-mode differentiation, which would otherwise silently ignore the loss.
    if not torch.compiler.is_compiling() and (with_grad or torch.autograd.forward_ad._current_level >= 0):
        call = _EagerCTCLoss.apply
    loss: Tensor = call(*inputs)[0]
    return loss
