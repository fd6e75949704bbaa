"""The exact log-probability of given texts."""

import math

import torch
from torch import Tensor

from crnn_ext._arguments import check_type
from crnn_ext.ctc._indices import (
    Lengths,
    TargetLists,
    Targets,
    check_cpu_values,
    index_tensor,
    lengths_tensor,
    longest_target,
    to_device,
)
from crnn_ext.ctc._inputs import InputType, check_logits, raise_value_error

_MISSING = -1  # the length of a missing text


def log_probability(
    logits: Tensor,
    targets: TargetLists,
    input_lengths: Lengths,
    target_lengths: Targets,
    *,
    blank: int = 0,
    input_type: InputType = "logits",
    validate: bool | None = None,
) -> Tensor:
    """The log-probability ln P(text | logits) of K texts per sample, in nats.

    This is the sum over all alignments of a text, the negative of `ctc_loss`. One call serves all
    texts and normalizes each frame once. There is no gradient: the result is detached, like those of the
    decoders.

    Args:
        logits: (T, N, C), or (T, C) for one sample; float16, bfloat16, float32 or float64, any strides.
        targets: (N, K, S), or (K, S) for one sample; integers in [0, C) other than blank. Padding is never
            read.
        input_lengths: (N,), frames of each sample, in [0, T]; a tensor of any integer dtype or a sequence of
            int; 0-d or an int for one sample. Later frames are never read.
        target_lengths: (N, K), or (K,): labels of each text; -1 for a missing text, such as a beam search
            may return.
        blank: the class of the blank, in [0, C).
        input_type: "logits", or "log_probs": used as they are, not normalized.
        validate: whether to check the values of lengths and targets. None: check those on the CPU (under
            torch.compile only if logits are on the CPU too), but not those on a GPU, which would synchronize.
            Without the check, an invalid text gives NaN.

    Returns:
        (N, K), or (K,); float64 for float64 logits, otherwise float32. -inf for a missing text and for one
        without an alignment (too few frames, or masked classes). NaN or +inf in a sample's frames (for
        log_probs, in values that a text uses) makes its texts NaN.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape, option, length or label is invalid; the message names it and its value. Under
            torch.compile, invalid lengths and labels raise RuntimeError with the same message.
    """
    normalize = check_logits(logits, blank, input_type)
    check_type("validate", validate, (bool, type(None)), "a bool or None")
    device, batched = logits.device, logits.dim() == 3
    texts, lengths = index_tensor("targets", targets), index_tensor("target_lengths", target_lengths)
    batch = logits
    if not batched:
        batch, texts, lengths = logits.unsqueeze(1), texts.unsqueeze(0), lengths.unsqueeze(0)
    frames, samples, classes = batch.shape
    if texts.dim() != 3 or texts.shape[0] != samples:
        shape = f"(N={samples}, K, S)" if batched else "(K, S)"
        found = tuple(texts.shape if batched else texts.shape[1:])
        raise ValueError(f"targets must be {shape}, got shape {found}")
    if lengths.shape != texts.shape[:2]:
        shape = f"(N={samples}, K={texts.shape[1]})" if batched else f"(K={texts.shape[1]},)"
        found = tuple(lengths.shape if batched else lengths.shape[1:])
        raise ValueError(f"target_lengths must be {shape}, got shape {found}")

    rows = [
        texts.flatten(0, 1),
        lengths_tensor("input_lengths", input_lengths, samples, batched),
        lengths.masked_fill(lengths == _MISSING, 0).flatten(),
    ]
    check = device.type == "cpu" if validate is None else validate
    try:
        if validate is None and device.type != "cpu" and not torch.compiler.is_compiling():
            check_cpu_values("log_probability", rows, frames, classes, blank)
        longest = longest_target(rows[2], device)
        *rows, lengths = to_device([*rows, lengths.flatten()], device)
        result: Tensor = torch.ops.crnn_ext.log_probability.default(
            batch.detach(), *rows, blank, normalize, check, longest
        )
    except RuntimeError as error:
        raise_value_error(error, "log_probability")
    result = result.masked_fill(lengths == _MISSING, -math.inf)
    return result.unflatten(0, texts.shape[:2]) if batched else result
