"""Network architectures: the name of a network class and its arguments."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from crnn_ext._arguments import check_bool, check_choice, check_int, check_keys, check_number
from crnn_ext.models import CRNN, CRNN_res, CRNN_v2

Network = CRNN | CRNN_v2 | CRNN_res

_NETWORKS: dict[str, type[Network]] = {network.__name__: network for network in (CRNN, CRNN_v2, CRNN_res)}

# Channels are rounded to multiples of 8, so a range of widths gives the same number of channels in the last
# normalization. These offsets, in channels of that layer, cover all combinations of channels that the other
# layers can have within the range.
_CHANNEL_OFFSETS = (0, -4 / 3, 4 / 3, -10 / 3, 10 / 3)


@dataclass(frozen=True)
class Architecture:
    """A network of `crnn_ext.models` without its weights.

    Args:
        name: "CRNN", "CRNN_v2" or "CRNN_res".
        nclass: number of classes, with the blank.
        nh: hidden units of each LSTM direction.
        imgH: height of the images, in pixels.
        nc: channels of the images.
        leakyRelu: use LeakyReLU(0.2) instead of ReLU; not for CRNN_res.
        width: factor of the numbers of channels.

    Raises:
        TypeError, ValueError: an argument is invalid; the message names it and its value.
    """

    name: str
    nclass: int
    nh: int = 256
    imgH: int = 32  # noqa: N815 (argument names of the networks)
    nc: int = 1
    leakyRelu: bool = False  # noqa: N815
    width: float = 1.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_choice(f"{owner}: name", self.name, _NETWORKS)
        check_int(f"{owner}: nclass", self.nclass, 2, 1 << 20)
        check_int(f"{owner}: nh", self.nh, 1, 1 << 14)
        check_int(f"{owner}: imgH", self.imgH, 32, 32)
        check_int(f"{owner}: nc", self.nc, 1, 3)
        check_number(f"{owner}: width", self.width, 1e-3, 16)
        check_bool(f"{owner}: leakyRelu", self.leakyRelu)
        if self.leakyRelu and self.name == "CRNN_res":
            raise ValueError(f"{owner}: leakyRelu must be False for CRNN_res, got True")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """The architecture that `to_dict` returned as a dict. The data may be untrusted.

        Raises:
            TypeError, ValueError: the keys are wrong, or a value is invalid.
        """
        return cls(**check_keys(cls.__name__, data, {field.name for field in fields(cls)}))

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        name: str | None = None,
        leakyRelu: bool = False,  # noqa: N803
    ) -> "Architecture":
        """Infers the architecture from the names and shapes of the tensors in a state dict.

        If no architecture fits, the result is a similar one: comparing its tensors with the state shows what
        is wrong with the state.

        Args:
            state: tensors by name.
            name: the network; None selects the one whose tensor names match best (batch counts may be
                missing).
            leakyRelu: cannot be inferred from the tensors.

        Raises:
            ValueError: a tensor that determines an argument is missing, or an argument is invalid.
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
            raise ValueError(f"the tensors belong to none of {', '.join(_NETWORKS)}") from None
        candidates = [
            cls(name, nclass, nh, nc=nc, leakyRelu=leakyRelu, width=(channels + offset) / full[last][0])
            for offset in _CHANNEL_OFFSETS
        ]
        shapes = {name: tensor.shape for name, tensor in state.items()}.items()
        return next((found for found in candidates if shapes <= found.tensor_shapes().items()), candidates[0])

    def to_dict(self) -> dict[str, Any]:
        """The name and the arguments, in the form in which a checkpoint stores them."""
        return asdict(self)

    def build(self) -> Network:
        """Returns the network with new random weights, in training mode."""
        arguments = asdict(self)
        network = _NETWORKS[arguments.pop("name")]
        if network is CRNN_res:
            del arguments["leakyRelu"]
        return network(**arguments)

    def build_on_meta(self) -> Network:
        """Returns the network on the meta device: its weights have shapes and dtypes, but no memory."""
        with torch.device("meta"):
            return self.build()

    def tensor_shapes(self) -> dict[str, torch.Size]:
        """The shapes of the tensors in the network's state dict, by name."""
        return {name: tensor.shape for name, tensor in self.build_on_meta().state_dict().items()}
