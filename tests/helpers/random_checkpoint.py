"""A checkpoint of an untrained network that reads a different text in nearly every image."""

import torch

from crnn_ext.ocr import Architecture, Checkpoint, Preprocessing
from crnn_ext.text import Charset


def random_checkpoint(name="CRNN", nc=1):
    torch.manual_seed(0)
    charset = Charset("abc")
    architecture = Architecture(name, charset.num_classes, nh=8, nc=nc, width=0.125)
    network = architecture.build()
    with torch.no_grad():
        # With the default statistics and small initial weights, the output would be the same for all images.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1
        network(torch.rand(16, nc, 32, 64) * 2 - 1)
        for parameter in network.rnn.parameters():
            parameter.mul_(4)
    return Checkpoint(network.eval(), architecture, charset, Preprocessing(channels=nc))
