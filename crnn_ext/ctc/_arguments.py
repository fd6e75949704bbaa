"""Argument checks shared by the operators' Python functions."""

import math
from typing import Literal, NoReturn

import torch
from torch import Tensor

InputType = Literal["logits", "log_probs"]

# The operators' flag `normalize`, by input_type.
NORMALIZE = {"logits": True, "log_probs": False}
_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def parse_choice(name: str, value: str, choices: dict[str, int] | dict[str, bool]) -> int:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return choices[value]


def check_validate(validate: bool | None) -> None:
    if validate is not None and not isinstance(validate, bool):
        raise TypeError(f"validate must be a bool or None, got {type(validate).__name__}")


def check_logits(logits: Tensor, blank: int) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor, got {type(logits).__name__}")
    if logits.dtype not in _FLOATING:
        raise TypeError(f"logits must be float16, bfloat16, float32 or float64, got {logits.dtype}")
    if logits.dim() not in (2, 3):
        raise ValueError(f"logits must be (T, N, C) or (T, C), got shape {tuple(logits.shape)}")
    classes = logits.shape[-1]
    if not 1 <= classes <= 1 << 20:
        raise ValueError(f"logits must have 1 to 2^20 classes, got shape {tuple(logits.shape)}")
    if not isinstance(blank, int) or isinstance(blank, bool):
        raise TypeError(f"blank must be an int, got {type(blank).__name__}")
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be in [0, {classes}), got {blank}")


def check_int(name: str, value: int, minimum: int, maximum: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if maximum is None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if maximum is not None and not minimum <= value <= maximum:
        raise ValueError(f"{name} must be in [{minimum}, {maximum}], got {value}")


def check_number(
    name: str, value: float, *, minimum: float = -math.inf, maximum: float = math.inf, finite: bool = True
) -> None:
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a float, got {type(value).__name__}")
    if math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{name} must be {'finite' if finite else 'a number'}, got {value}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")


def raise_value_error(error: RuntimeError, operator: str) -> NoReturn:
    """Raises a failed check of the operator as ValueError, and any other error unchanged."""
    message = str(error)
    if type(error) is RuntimeError and message.startswith(f"{operator}: "):
        raise ValueError(message.splitlines()[0]) from None
    raise error
