"""Which network a checkpoint holds: its name among those known and its arguments."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2
from crnn_ext.ocr.system.arguments import check_int, check_keys, check_number

Network = CRNN | CRNN_v2 | CRNN_res

_NETWORKS: dict[str, type[Network]] = {network.__name__: network for network in (CRNN, CRNN_v2, CRNN_res)}

# Channels are rounded to multiples of 8, so that a range of widths gives as many in the last normalisation.
# These steps, in channels of it, meet every combination of channels of the other layers within that range.
_ROUNDINGS = (0, -4 / 3, 4 / 3, -10 / 3, 10 / 3)


@dataclass(frozen=True)
class Architecture:
    """A network of `crnn_ext.models` without its weights.

    Args:
        name: "CRNN", "CRNN_v2" or "CRNN_res".
        nclass, nh, imgH, nc, leakyRelu, width: its arguments. CRNN_res has no leakyRelu.

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message names it and the value.
    """

    name: str
    nclass: int
    nh: int = 256
    imgH: int = 32  # noqa: N815 (the networks' names)
    nc: int = 1
    leakyRelu: bool = False  # noqa: N815
    width: float = 1.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.name not in list(_NETWORKS):  # a list, as the name may be unhashable
            raise ValueError(
                f"{owner}: name must be one of {', '.join(_NETWORKS)}, and it is {self.name!r:.60}"
            )
        check_int(owner, "nclass", self.nclass, 2, 1 << 20)
        check_int(owner, "nh", self.nh, 1, 1 << 14)
        check_int(owner, "imgH", self.imgH, 32, 32)
        check_int(owner, "nc", self.nc, 1, 3)
        check_number(owner, "width", self.width, 1e-3, 16)
        if not isinstance(self.leakyRelu, bool):
            raise TypeError(f"{owner}: leakyRelu must be a bool, and it is {self.leakyRelu!r:.60}")
        if self.leakyRelu and self.name == "CRNN_res":
            raise ValueError(f"{owner}: leakyRelu must be False for CRNN_res, and it is True")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """The architecture that `to_dict` wrote. The data need not be trusted.

        Raises:
            TypeError, ValueError: the data is not of that form, and as the constructor.
        """
        return cls(**check_keys(cls.__name__, data, {field.name for field in fields(cls)}))

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        name: str | None = None,
        leakyRelu: bool = False,  # noqa: N803
    ) -> "Architecture":
        """The architecture of the network with this state dict, found by the names and shapes of its tensors.

        If none fits, it is one that comes near, whose tensors tell what is wrong with the state.

        Args:
            state: tensors by name.
            name: of the network; None: the one that has these names, counts of batches aside.
            leakyRelu: shows in no tensor.

        Raises:
            ValueError: the tensors that tell the arguments are not there; and as the constructor.
        """
        if name is None:
            name = min(_NETWORKS, key=lambda name: len(cls(name, 2).tensor_shapes().keys() ^ state.keys()))
        full = cls(name, 2).tensor_shapes()
        first, last = next(iter(full)), "bn5.weight"
        try:
            nclass = state["rnn.1.embedding.weight"].shape[0]
            nh = state["rnn.0.rnn.weight_hh_l0"].shape[1]
            nc = state[first].shape[1]
            channels = state[last].shape[0]
        except (KeyError, IndexError):
            raise ValueError(f"its tensors are those of none of {', '.join(_NETWORKS)}") from None
        candidates = [
            cls(name, nclass, nh, nc=nc, leakyRelu=leakyRelu, width=(channels + step) / full[last][0])
            for step in _ROUNDINGS
        ]
        shapes = {name: tensor.shape for name, tensor in state.items()}.items()
        return next((found for found in candidates if shapes <= found.tensor_shapes().items()), candidates[0])

    def to_dict(self) -> dict[str, Any]:
        """The name and the arguments, as a checkpoint holds them."""
        return asdict(self)

    def build(self) -> Network:
        """The network with fresh random weights, in training mode."""
        arguments = asdict(self)
        network = _NETWORKS[arguments.pop("name")]
        if network is CRNN_res:
            del arguments["leakyRelu"]
        return network(**arguments)

    def build_on_meta(self) -> Network:
        """The network with weights that have shapes and dtypes, but take no memory."""
        with torch.device("meta"):
            return self.build()

    def tensor_shapes(self) -> dict[str, torch.Size]:
        """The shapes of the network's tensors, by their names in its state dict."""
        return {name: tensor.shape for name, tensor in self.build_on_meta().state_dict().items()}
