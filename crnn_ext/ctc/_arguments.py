"""Checks that the operators' Python faces share."""

import math
from typing import Literal, NoReturn

import torch
from torch import Tensor

InputType = Literal["logits", "log_probs"]

NORMALIZE = {"logits": True, "log_probs": False}
_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def parse_choice(name: str, value: str, choices: dict[str, int] | dict[str, bool]) -> int:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, and it is {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, and it is {value!r}")
    return choices[value]


def check_validate(validate: bool | None) -> None:
    if validate is not None and not isinstance(validate, bool):
        raise TypeError(f"validate must be a bool or None, and it is {type(validate).__name__}")


def check_logits(logits: Tensor, blank: int) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor, and it is {type(logits).__name__}")
    if logits.dtype not in _FLOATING:
        raise TypeError(f"logits must be float16, bfloat16, float32 or float64, and it is {logits.dtype}")
    if logits.dim() not in (2, 3):
        raise ValueError(f"logits must be (T, N, C) or (T, C), and its shape is {tuple(logits.shape)}")
    classes = logits.shape[-1]
    if not 1 <= classes <= 1 << 20:
        raise ValueError(f"logits must have 1 to 2^20 classes, and its shape is {tuple(logits.shape)}")
    if not isinstance(blank, int) or isinstance(blank, bool):
        raise TypeError(f"blank must be an int, and it is {type(blank).__name__}")
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be in [0, C={classes}), and it is {blank}")


def check_count(name: str, value: int, least: int, most: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, and it is {type(value).__name__}")
    if most is None and value < least:
        raise ValueError(f"{name} must be at least {least}, and it is {value}")
    if most is not None and not least <= value <= most:
        raise ValueError(f"{name} must be in [{least}, {most}], and it is {value}")


def check_number(
    name: str, value: float, *, least: float = -math.inf, most: float = math.inf, finite: bool = True
) -> None:
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a float, and it is {type(value).__name__}")
    if math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{name} must be {'finite' if finite else 'a number'}, and it is {value}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, and it is {value}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, and it is {value}")


def raise_value_error(error: RuntimeError, operator: str) -> NoReturn:
    """Raises the ValueError that a failed check of the operator stands for; other errors as they are."""
    message = str(error)
    if type(error) is RuntimeError and message.startswith(f"{operator}: "):
        raise ValueError(message.splitlines()[0]) from None
    raise error
