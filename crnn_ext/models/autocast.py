"""The autocast dtype of a tensor, by means that torch.compile can trace."""

import torch
from torch import Tensor


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype to which autocast casts such a tensor; None if it does not."""
    kind = tensor.device.type
    # Autocast has no state for device type "meta". torch.amp.is_autocast_available would tell, but Dynamo in
    # torch 2.11 cannot trace it.
    if kind == "meta" or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)
