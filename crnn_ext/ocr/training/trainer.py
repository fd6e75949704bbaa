"""The optimizer step: forward, backward, update and moving average, in one process or several."""

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
from .ema import ExponentialMovingAverage
from .model import Criterion, EncodedBatch, NetworkWithLoss, batch_norm_buffers, batch_norm_layers

# Other precisions train without autocast.
_AUTOCAST_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class StepResult(NamedTuple):
    """The outcome of a step.

    Attributes:
        totals: float64 `(2,)`, sums over the lines of this process: the loss, and the number of frames whose
            most probable class is the blank.
        frames: number of frames of this process.
        gradient_norm: norm of the gradient of all processes before clipping.
        updated: False if no weight changed, because the gradient was not finite or no line could be trained
            on.
    """

    totals: Tensor
    frames: int
    gradient_norm: float
    updated: bool


class Trainer:
    """The network, the optimizer and all else that changes from step to step.

    Args:
        config: all settings.
        checkpoint: the network on the CPU; the trainer moves it to the device.
        group: the processes that train together.
        device: device of this process.
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
        self._model = _wrap_distributed(module) if group.world_size > 1 else module
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), config.lr, weight_decay=config.weight_decay
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")

    def step(self, batches: Sequence[EncodedBatch], characters: int, learning_rate: float) -> StepResult:
        """Does one optimizer step on the batches of all processes.

        Args:
            batches: batches of this process.
            characters: label characters of all batches of all processes; divides the sum of the losses.
            learning_rate: learning rate of the step.
        """
        buffers_before = [tensor.clone() for tensor in batch_norm_buffers(self._network)]
        totals = torch.zeros(2, device=self._device, dtype=torch.float64)
        for index, batch in enumerate(batches):
            # The last backward pass exchanges the gradients of all batches at once.
            exchange = nullcontext() if index == len(batches) - 1 else self._no_sync()
            with exchange:
                with self._autocast():
                    images = batch.images.to(self._device, non_blocking=True)
                    loss, blanks = self._model(batch, images)
                # DistributedDataParallel averages over the processes; the gradient has to be a sum.
                factor = self._group.world_size / max(characters, 1)
                self._scaler.scale(loss * factor).backward()
            totals += torch.stack([loss.detach().to(totals), blanks.to(totals)])
        frames = sum(int(batch.input_lengths.sum()) for batch in batches)
        norm = self._update(buffers_before, characters > 0, learning_rate)
        return StepResult(totals, frames, norm, characters > 0 and math.isfinite(norm))

    def _update(self, buffers_before: Sequence[Tensor], has_lines: bool, learning_rate: float) -> float:
        """Updates the weights if the gradient is finite, else restores the buffers; returns its norm."""
        self._scaler.unscale_(self._optimizer)
        # Reading the norm synchronizes with the GPU once a step; the float16 scaler does so once more.
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._config.clip).item()
        if has_lines and math.isfinite(norm):
            self._optimizer.param_groups[0]["lr"] = learning_rate
            self._scaler.step(self._optimizer)
            if self._average is not None:
                self._average.update(self._network)
        else:
            with torch.no_grad():
                for tensor, value in zip(batch_norm_buffers(self._network), buffers_before, strict=True):
                    tensor.copy_(value)
        self._scaler.update()
        self._optimizer.zero_grad()
        return float(norm)

    @property
    def eval_network(self) -> Network:
        """The network to validate and save: the moving average if there is one."""
        return self._network if self._average is None else self._average.network

    def set_train_mode(self) -> None:
        """Puts the network into training mode; to be called after each validation."""
        self._network.train()
        if self._config.freeze_batch_norm:
            for layer in batch_norm_layers(self._network):
                layer.eval()

    def average_batch_norm_statistics(self) -> None:
        """Averages the batch-norm statistics over all processes."""
        networks = [self._network] if self._average is None else [self._network, self.eval_network]
        for network in networks:
            buffers = batch_norm_buffers(network)
            self._group.all_reduce_mean_(tensor for tensor in buffers if tensor.is_floating_point())

    def state_tensors(self) -> dict[str, Tensor]:
        """All tensors that change from step to step, not copies: writing to one changes the trainer."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        if self._average is not None:
            average = self._average.network.state_dict()
            tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
            tensors["average_count"] = self._average.count
        for name, parameter in self._network.named_parameters():
            moments = self._optimizer.state[parameter]
            if not moments:  # AdamW creates them at its first step
                moments["step"] = torch.tensor(0.0)
                moments["exp_avg"] = torch.zeros_like(parameter)
                moments["exp_avg_sq"] = torch.zeros_like(parameter)
            tensors |= {f"optimizer.{name}.{key}": tensor for key, tensor in moments.items()}
        return tensors

    @property
    def loss_scale(self) -> tuple[float, int]:
        """The float16 loss scale and the steps since it last changed; (1, 0) in other precisions."""
        state = self._scaler.state_dict()
        return state.get("scale", 1.0), state.get("_growth_tracker", 0)

    @loss_scale.setter
    def loss_scale(self, scale: tuple[float, int]) -> None:
        if self._scaler.is_enabled():
            state = self._scaler.state_dict()
            self._scaler.load_state_dict({**state, "scale": scale[0], "_growth_tracker": scale[1]})

    def _no_sync(self) -> AbstractContextManager[None]:
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST_DTYPES.get(self._config.precision or "")
        return torch.autocast(self._device.type, dtype, enabled=dtype is not None)


def _wrap_distributed(module: NetworkWithLoss) -> DistributedDataParallel:
    """Wraps the module without synchronizing buffers: validation averages the batch-norm statistics."""
    # torch 2.13 renamed the argument.
    renamed = "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters
    return DistributedDataParallel(
        module,
        **{"forward_sync_buffers" if renamed else "broadcast_buffers": False},  # type: ignore[arg-type]
    )
