"""A network that learns, one step after the other, in one process or in several together."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from crnn_ext.ocr.checkpoints import Checkpoint, Network
from crnn_ext.ocr.system.distributed import ProcessGroup

from .config import TrainingConfig
from .model import (
    Criterion,
    EncodedBatch,
    ExponentialMovingAverage,
    NetworkWithLoss,
    batch_norm_buffers,
    batch_norm_layers,
)

# What autocast lowers to; other precisions are without it.
_LOWERED = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class StepResult(NamedTuple):
    """What a step was like.

    Attributes:
        sums: float64 `(2,)` over the lines of this process: their losses, and the frames in which the blank
            is the most probable class.
        frames: of the lines of this process.
        gradient_norm: of all processes together, before clipping.
        updated: False if the gradient was not finite or no line could be trained on: then nothing changed.
    """

    sums: Tensor
    frames: int
    gradient_norm: float
    updated: bool


class Trainer:
    """The network with everything that changes from step to step.

    Args:
        config: all settings.
        checkpoint: the network, on the CPU; it is moved to the device.
        group: the processes that learn together.
        device: of this process.
        criterion: the loss.
    """

    def __init__(
        self,
        config: TrainingConfig,
        checkpoint: Checkpoint,
        group: ProcessGroup,
        device: torch.device,
        criterion: Criterion,
    ) -> None:
        self._config, self._group, self._device = config, group, device
        self._network = checkpoint.network.to(device)
        self.set_train_mode()
        self._average = ExponentialMovingAverage(self._network, config.ema) if config.ema else None
        module = NetworkWithLoss(self._network, criterion, checkpoint.charset.blank)
        self._model = _distributed(module) if group.world_size > 1 else module
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), config.lr, weight_decay=config.weight_decay
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")

    def step(self, batches: Sequence[EncodedBatch], characters: int, learning_rate: float) -> StepResult:
        """Learns from the batches of all processes together.

        Args:
            batches: of this process.
            characters: of the labels of all batches of all processes; the sum of the losses is divided by it.
            learning_rate: of this step.
        """
        before = [tensor.clone() for tensor in batch_norm_buffers(self._network)]
        sums = torch.zeros(2, device=self._device, dtype=torch.float64)
        for index, batch in enumerate(batches):
            # The gradients of several batches are exchanged once, with those of the last.
            exchange = nullcontext() if index == len(batches) - 1 else self._without_exchange()
            with exchange:
                with self._autocast():
                    images = batch.images.to(self._device, non_blocking=True)
                    loss, blanks = self._model(batch, images)
                # DistributedDataParallel takes the mean over the processes, of what has to be a sum.
                share = self._group.world_size / max(characters, 1)
                self._scaler.scale(loss * share).backward()
            sums += torch.stack([loss.detach().to(sums), blanks.to(sums)])
        frames = sum(int(batch.input_lengths.sum()) for batch in batches)
        norm = self._update(before, characters > 0, learning_rate)
        return StepResult(sums, frames, norm, characters > 0 and math.isfinite(norm))

    def _update(self, before: Sequence[Tensor], any_lines: bool, learning_rate: float) -> float:
        """Lets the optimizer act on the gradient if it is usable, and returns its norm."""
        self._scaler.unscale_(self._optimizer)
        # Reading the norm waits for the GPU, once a step; the scaler of float16 does so once more.
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._config.clip).item()
        if any_lines and math.isfinite(norm):
            self._optimizer.param_groups[0]["lr"] = learning_rate
            self._scaler.step(self._optimizer)
            if self._average is not None:
                self._average.update(self._network)
        else:
            with torch.no_grad():
                for tensor, value in zip(batch_norm_buffers(self._network), before, strict=True):
                    tensor.copy_(value)
        self._scaler.update()
        self._optimizer.zero_grad()
        return float(norm)

    @property
    def eval_network(self) -> Network:
        """The network that is validated and saved: the average of the weights, if there is one."""
        return self._network if self._average is None else self._average.network

    def set_train_mode(self) -> None:
        """Puts the network into training mode, as after each validation."""
        self._network.train()
        if self._config.freeze_batch_norm:
            for layer in batch_norm_layers(self._network):
                layer.eval()

    def average_batch_norm_statistics(self) -> None:
        """Makes the statistics of batch normalisation the mean of those of all processes."""
        networks = [self._network] if self._average is None else [self._network, self.eval_network]
        for network in networks:
            self._group.all_reduce_mean_(
                tensor for tensor in batch_norm_buffers(network) if tensor.is_floating_point()
            )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that change from step to step, as they are: who writes to them changes the network."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        if self._average is not None:
            average = self._average.network.state_dict()
            tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
            tensors["average_count"] = self._average.count
        for name, parameter in self._network.named_parameters():
            moments = self._optimizer.state[parameter]
            if not moments:  # AdamW has not made any step
                moments["step"] = torch.tensor(0.0)
                moments["exp_avg"] = torch.zeros_like(parameter)
                moments["exp_avg_sq"] = torch.zeros_like(parameter)
            tensors |= {f"optimizer.{name}.{key}": tensor for key, tensor in moments.items()}
        return tensors

    @property
    def loss_scale(self) -> tuple[float, int]:
        """The scale of float16 gradients, and for how many steps it has been; 1 and 0 in other precisions."""
        state = self._scaler.state_dict()
        return state.get("scale", 1.0), state.get("_growth_tracker", 0)

    @loss_scale.setter
    def loss_scale(self, scale: tuple[float, int]) -> None:
        if self._scaler.is_enabled():
            state = self._scaler.state_dict()
            self._scaler.load_state_dict({**state, "scale": scale[0], "_growth_tracker": scale[1]})

    def _without_exchange(self) -> AbstractContextManager[None]:
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()

    def _autocast(self) -> torch.autocast:
        dtype = _LOWERED.get(self._config.precision or "")
        return torch.autocast(self._device.type, dtype, enabled=dtype is not None)


def _distributed(module: NetworkWithLoss) -> DistributedDataParallel:
    """The module spread over the processes.

    The statistics of batch normalisation are averaged when somebody is to see them, not at every step.
    """
    # What torch calls it since 2.13.
    renamed = "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters
    return DistributedDataParallel(
        module,
        **{"forward_sync_buffers" if renamed else "broadcast_buffers": False},  # type: ignore[arg-type]
    )
