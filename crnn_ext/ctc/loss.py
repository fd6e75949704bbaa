"""The loss and its module."""

from typing import Literal

import torch
from torch import Tensor, nn

from crnn_ext import ops
from crnn_ext.ctc._arguments import (
    NORMALIZE,
    InputType,
    check_logits,
    check_validate,
    parse_choice,
    raise_value_error,
)
from crnn_ext.ctc._indices import (
    Lengths,
    Targets,
    check_cpu_values,
    lengths_tensor,
    longest_target,
    targets_tensor,
    to_device,
)

Reduction = Literal["none", "mean", "sum"]

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def ctc_loss(
    logits: Tensor,
    targets: Targets,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    input_type: InputType = "logits",
    validate: bool | None = None,
) -> Tensor:
    r"""Connectionist temporal classification loss, :math:`-\ln P(\text{target} \mid \text{logits})`, in nats.

    Log-softmax over the classes, the sum over all alignments and the gradient are one operator. The arguments
    and their order are those of :func:`torch.nn.functional.ctc_loss`, whose log-probabilities may be passed
    as they are: normalising them again changes nothing.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
            16-bit inputs are computed in float32. -inf masks a class. Frames at or beyond a sample's input
            length are never read.
        targets: (N, S) padded, or 1-D concatenated (sum of target_lengths); integers in [0, C) other than
            blank. Padding is never looked at. (S,) for one sample.
        input_lengths: (N,), frames of each sample, in [0, T]; a tensor of any integer dtype or a sequence of
            int; 0-d or an int for one sample.
        target_lengths: (N,), labels of each sample; likewise.
        blank: the class that stands for no label, in [0, C).
        reduction: "none": (N,); "mean": each loss over its target length (at least 1), then the mean over N,
            as torch does; "sum".
        zero_infinity: losses and gradients of samples that no alignment fits become 0, not +inf and NaN.
        input_type: "logits", or "log_probs": taken as they are, not normalised; the gradient is then minus
            the posterior. A log-probability above 2^26 / T counts as +inf.
        validate: whether the values of lengths and targets are checked. None: those in the CPU's memory are
            (under torch.compile only with logits that are there too), those on a GPU, where that would
            synchronise, are not. Unchecked, a sample that breaks the rules has loss NaN; of concatenated
            targets, so have those behind it, whose labels cannot be told.

    Returns:
        The loss, () or (N,); float64 for float64 logits, float32 for all others. A sample with NaN or +inf in
        its live frames (in those of log_probs that its target needs) has loss and gradient NaN; its
        neighbours are unaffected. A loss above 9.3e7 (2^27 ln 2) comes out as +inf.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, option, length or label breaks its rule; the message names it and the value.
            Within torch.compile it is a RuntimeError with the same text for lengths and labels.

    Source: A. Graves et al., "Connectionist Temporal Classification", ICML 2006.
    """
    check_logits(logits, blank)
    if not isinstance(zero_infinity, bool):
        raise TypeError(f"zero_infinity must be a bool, and it is {type(zero_infinity).__name__}")
    check_validate(validate)
    reduction_code = parse_choice("reduction", reduction, _REDUCTIONS)
    normalize = bool(parse_choice("input_type", input_type, NORMALIZE))
    device = logits.device
    batched = logits.dim() == 3
    if not batched:
        logits = logits.unsqueeze(1)
    frames, samples, classes = logits.shape
    indices = [
        targets_tensor(targets, samples, batched),
        lengths_tensor("input_lengths", input_lengths, samples, batched),
        lengths_tensor("target_lengths", target_lengths, samples, batched),
    ]
    options = (
        blank,
        reduction_code,
        zero_infinity,
        normalize,
        device.type == "cpu" if validate is None else validate,
        logits.requires_grad and torch.is_grad_enabled(),
        longest_target(indices[2], device),
    )
    if torch.compiler.is_compiling():
        loss = ops.ctc_loss(logits, *to_device(indices, device), *options)
    else:
        try:
            if validate is None and device.type != "cpu":
                check_cpu_values("ctc_loss", indices, frames, classes, blank)
            loss = ops.ctc_loss(logits, *to_device(indices, device), *options)
        except RuntimeError as error:
            raise_value_error(error, "ctc_loss")
    return loss if batched or reduction != "none" else loss.squeeze(0)


class CTCLoss(nn.Module):
    """:func:`ctc_loss` as a module, in place of :class:`torch.nn.CTCLoss`; takes logits or log-probabilities.

    Args:
        blank: the class that stands for no label.
        reduction: "none", "mean" or "sum".
        zero_infinity: whether samples that no alignment fits count as 0.
        input_type: "logits" or "log_probs".
        validate: whether the values of lengths and targets are checked; None: as :func:`ctc_loss` says.
    """

    def __init__(
        self,
        blank: int = 0,
        reduction: Reduction = "mean",
        zero_infinity: bool = False,
        *,
        input_type: InputType = "logits",
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        self.blank = blank
        self.reduction: Reduction = reduction
        self.zero_infinity = zero_infinity
        self.input_type: InputType = input_type
        self.validate = validate

    def forward(
        self,
        logits: Tensor,
        targets: Targets,
        input_lengths: Lengths,
        target_lengths: Lengths,
    ) -> Tensor:
        """The loss of a batch; shapes, dtypes and errors as for :func:`ctc_loss`."""
        return ctc_loss(
            logits,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
            input_type=self.input_type,
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        """The options, for print()."""
        return (
            f"blank={self.blank}, reduction={self.reduction!r}, zero_infinity={self.zero_infinity}, "
            f"input_type={self.input_type!r}, validate={self.validate}"
        )
