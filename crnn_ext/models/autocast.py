"""What autocast makes of a tensor, in terms that torch.compile can trace."""

import torch
from torch import Tensor


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype to which autocast lowers such a tensor where it lowers any; None if it leaves it as it is."""
    kind = tensor.device.type
    # It has no state for the kind "meta". torch.amp.is_autocast_available knows that, but the Dynamo of torch
    # 2.11 cannot trace it.
    if kind == "meta" or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)
