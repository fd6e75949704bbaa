"""Checks of logits, and errors of operators: what all Python functions of the operators share."""

from typing import Literal, NoReturn

import torch
from torch import Tensor

from crnn_ext._arguments import check_choice, check_index, check_type

InputType = Literal["logits", "log_probs"]

_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INPUT_TYPES = ("logits", "log_probs")


def check_logits(logits: Tensor, blank: int, input_type: InputType) -> bool:
    """Checks logits, blank and input_type; returns the operators' flag `normalize`."""
    check_type("logits", logits, Tensor, "a tensor")
    if logits.dtype not in _FLOATING:
        raise TypeError(f"logits must be float16, bfloat16, float32 or float64, got {logits.dtype}")
    if logits.dim() not in (2, 3):
        raise ValueError(f"logits must be (T, N, C) or (T, C), got shape {tuple(logits.shape)}")
    classes = logits.shape[-1]
    if not 1 <= classes <= 1 << 20:
        raise ValueError(f"logits must have 1 to 2^20 classes, got shape {tuple(logits.shape)}")
    check_index("blank", blank, classes)
    check_choice("input_type", input_type, _INPUT_TYPES)
    return input_type == "logits"


def raise_value_error(error: RuntimeError, operator: str) -> NoReturn:
    """Raises a failed check of the operator as ValueError, and any other error unchanged."""
    message = str(error)
    if type(error) is RuntimeError and message.startswith(f"{operator}: "):
        raise ValueError(message.splitlines()[0]) from None
    raise error
