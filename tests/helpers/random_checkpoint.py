"""A checkpoint without training, whose random network reads something else in nearly every image."""

import torch

from crnn_ext.ocr import Architecture, Checkpoint, Preprocessing
from crnn_ext.text import Charset


def random_checkpoint(name="CRNN", nc=1):
    torch.manual_seed(0)
    charset = Charset("abc")
    architecture = Architecture(name, charset.num_classes, nh=8, nc=nc, width=0.125)
    network = architecture.build()
    with torch.no_grad():
        # Without these statistics, and with weights as small as they begin, it would answer the same to all.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1
        network(torch.rand(16, nc, 32, 64) * 2 - 1)
        for parameter in network.rnn.parameters():
            parameter.mul_(4)
    return Checkpoint(network.eval(), architecture, charset, Preprocessing(channels=nc))
