"""The three networks, small enough for tests."""

import pytest
import torch
from torch import nn

from crnn_ext.models import CRNN, CRNN_res, CRNN_v2

requires_dynamic_width_export = pytest.mark.skipif(
    torch.__version__ < "2.13", reason="torch before 2.13 exports networks for some widths only"
)

NETWORKS = [CRNN, CRNN_v2, CRNN_res]


def small_network(network, nc=1, nclass=5, nh=4, **options):
    """A network with 8 channels per layer, in eval mode, in which every layer affects the output.

    With torch's default initialization, activations fade from layer to layer and batch norms are identities.
    """
    torch.manual_seed(0)
    model = network(32, nc, nclass, nh, width=0.01, **options)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.bias, module.running_mean):
                nn.init.uniform_(values, -0.5, 0.5)
    return model.eval()
