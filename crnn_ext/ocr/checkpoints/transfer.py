"""Transfer of a trained network to another charset."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from crnn_ext.text import Charset

from .architecture import Architecture, Network
from .checkpoint import Checkpoint

_LAST_LAYER = "rnn.1.embedding"


class Transfer(NamedTuple):
    """A network for a new charset, and the characters that the transfer kept, added and dropped."""

    network: Network
    architecture: Architecture
    kept: str
    added: str
    dropped: str


def transfer(checkpoint: Checkpoint, charset: Charset) -> Transfer:
    """Returns the network of a checkpoint for another charset, in training mode.

    All layers except the last keep their weights. In the last layer, the blank and the characters of both
    charsets keep their rows. Added characters get randomly initialized rows; their biases are the mean bias
    of the kept characters, which gives no added character an advantage.

    Args:
        checkpoint: the network and its charset.
        charset: the new charset.
    """
    old, new = checkpoint.charset, charset
    architecture = replace(checkpoint.architecture, nclass=new.num_classes)
    network = architecture.build()
    state = checkpoint.network.state_dict()
    new_state = network.state_dict()
    kept = [character for character in new.characters if character in old.characters]
    new_rows, old_rows = (
        torch.cat([torch.tensor([charset.blank]), charset.encode(kept, padded=False)[0]])
        for charset in (new, old)
    )
    for parameter, _ in last_layer(network).named_parameters():
        name = f"{_LAST_LAYER}.{parameter}"
        rows = new_state[name]
        if name.endswith("bias"):
            rows.fill_(state[name][old_rows[1:]].mean() if kept else 0)
        rows[new_rows] = state[name][old_rows]
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
    """The output layer of a network, which has one row for each class."""
    layer = network.get_submodule(_LAST_LAYER)
    assert isinstance(layer, nn.Linear)
    return layer
