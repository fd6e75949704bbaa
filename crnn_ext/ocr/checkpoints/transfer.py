"""What a network has learnt of one set of characters, in a network for another."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from crnn_ext.text import Charset

from .architecture import Architecture, Network
from .checkpoint import Checkpoint

_LAST_LAYER = "rnn.1.embedding"


class Transfer(NamedTuple):
    """A network for new characters: those that the old one had too, those it had not, those that went."""

    network: Network
    architecture: Architecture
    kept: str
    added: str
    dropped: str


def transfer(checkpoint: Checkpoint, charset: Charset) -> Transfer:
    """The network of a checkpoint for the characters of another charset, in training mode.

    Everything but the last layer stays. Of the last layer, the blank and the characters that both charsets
    have keep their rows; the rows of added characters are drawn as for a new network, and their biases are
    the mean of those of the known characters, so that none of them stands out.

    Args:
        checkpoint: the network and its charset.
        charset: the new one.
    """
    old, new = checkpoint.charset, charset
    architecture = replace(checkpoint.architecture, nclass=new.num_classes)
    network = architecture.build()
    state = checkpoint.network.state_dict()
    fresh = network.state_dict()
    kept = [character for character in new.characters if character in old.characters]
    to, of = (
        torch.cat([torch.tensor([charset.blank]), charset.encode(kept, padded=False)[0]])
        for charset in (new, old)
    )
    for parameter, _ in last_layer(network).named_parameters():
        name = f"{_LAST_LAYER}.{parameter}"
        rows = fresh[name]
        if name.endswith("bias"):
            rows.fill_(state[name][of[1:]].mean() if kept else 0)
        rows[to] = state[name][of]
        state[name] = rows
    network.load_state_dict(state)
    return Transfer(
        network.train(),
        architecture,
        "".join(kept),
        "".join(character for character in new.characters if character not in old.characters),
        "".join(character for character in old.characters if character not in new.characters),
    )


def last_layer(network: Network) -> nn.Linear:
    """The layer of a network whose rows are those of the classes."""
    layer = network.get_submodule(_LAST_LAYER)
    assert isinstance(layer, nn.Linear)
    return layer
