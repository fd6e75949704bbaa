"""The CTC loss, as a function and as a module."""

from typing import Literal

import torch
from torch import Tensor, nn

from crnn_ext import ops
from crnn_ext._arguments import check_bool, check_choice, check_type
from crnn_ext.ctc._indices import (
    Lengths,
    Targets,
    check_cpu_values,
    lengths_tensor,
    longest_target,
    targets_tensor,
    to_device,
)
from crnn_ext.ctc._inputs import InputType, check_logits, raise_value_error

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
    """Connectionist temporal classification loss, -ln P(target | logits), in nats.

    One operator computes the log-softmax over the classes, the sum over all alignments and the gradient. The
    arguments and their order are those of `torch.nn.functional.ctc_loss`. Log-probabilities are valid
    logits: normalizing them again changes nothing.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
            16-bit inputs are computed in float32. -inf masks a class. Frames from a sample's input length on
            are never read.
        targets: (N, S) padded, or 1-D concatenated (sum of target_lengths); integers in [0, C) other than
            blank. Padding is never read. (S,) for one sample.
        input_lengths: (N,), frames of each sample, in [0, T]; a tensor of any integer dtype or a sequence of
            int; 0-d or an int for one sample.
        target_lengths: (N,), labels of each sample; same types.
        blank: the class of the blank, in [0, C).
        reduction: "none": (N,); "mean": each loss divided by its target length (at least 1), then the mean
            over N, as in torch; "sum".
        zero_infinity: set losses and gradients of samples without an alignment to 0 instead of +inf and NaN.
        input_type: "logits", or "log_probs": used as they are, not normalized; the gradient is then the
            negative posterior. A log-probability above 2^26 / T counts as +inf.
        validate: whether to check the values of lengths and targets. None: check those on the CPU (under
            torch.compile only if logits are on the CPU too), but not those on a GPU, which would synchronize.
            Without the check, an invalid sample has loss NaN; with concatenated targets so do all later
            samples, whose labels cannot be located.

    Returns:
        The loss, () or (N,); float64 for float64 logits, otherwise float32. A sample with NaN or +inf in its
        frames (for log_probs, in values that its target uses) has loss and gradient NaN; other samples are
        unaffected. A loss above 9.3e7 (2^27 ln 2) becomes +inf.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape, option, length or label is invalid; the message names it and its value. Under
            torch.compile, invalid lengths and labels raise RuntimeError with the same message.

    Source: A. Graves et al., "Connectionist Temporal Classification", ICML 2006.
    """
    normalize = check_logits(logits, blank, input_type)
    check_choice("reduction", reduction, _REDUCTIONS)
    check_bool("zero_infinity", zero_infinity)
    check_type("validate", validate, (bool, type(None)), "a bool or None")
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
        _REDUCTIONS[reduction],
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
    """`ctc_loss` as a module, a replacement for `torch.nn.CTCLoss` that also takes logits.

    Args:
        blank: the class of the blank.
        reduction: "none", "mean" or "sum".
        zero_infinity: whether samples without an alignment count as 0.
        input_type: "logits" or "log_probs".
        validate: whether to check the values of lengths and targets; see `ctc_loss`.
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
        """The loss of a batch; shapes, dtypes and errors as for `ctc_loss`."""
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
        """The options, as print() shows them."""
        return (
            f"blank={self.blank}, reduction={self.reduction!r}, zero_infinity={self.zero_infinity}, "
            f"input_type={self.input_type!r}, validate={self.validate}"
        )
