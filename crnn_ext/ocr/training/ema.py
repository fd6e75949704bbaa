"""The exponential moving average of the weights of a network."""

import copy

import torch

from crnn_ext.ocr.checkpoints import Network


class ExponentialMovingAverage:
    """Averages the weights and batch-norm statistics of a network over its steps.

    The average covers about 1 / (1 - decay) steps. Early on it covers fewer, about a tenth of the steps so
    far, because the initial weights carry no information. Unlike torch's AveragedModel it never waits for a
    GPU, since the count is on the CPU.

    Attributes:
        network: the average.
        count: int64 scalar, the number of updates.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.count = torch.tensor(0)
        self._decay = decay

    def update(self, network: Network) -> None:
        """Adds the weights after a step."""
        count = int(self.count)
        weight = 1 - min(self._decay, count / (count + 9))
        averages, currents = self.network.state_dict().values(), network.state_dict().values()
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, weight)
            else:
                average.copy_(current)
        self.count += 1
