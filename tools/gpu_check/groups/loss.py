"""ctc_loss, forward and backward, compared with torch's own kernels and with cuDNN."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from bench_ctc_loss import MAX_GRADIENT_ERROR, MAX_LOSS_ERROR, Shape, losses_and_gradient
from rows import NotChosenError, Row
from timers import Bench
from torch import Tensor

from crnn_ext.ctc import ctc_loss

SHAPES = [
    Shape(26, 64, 37, 8),
    Shape(160, 64, 97, 40),
    Shape(500, 64, 32, 120),
    Shape(183, 90, 10241, 29),
    Shape(80, 256, 6625, 15),
]
TINY_SHAPES = [Shape(6, 3, 5, 2), Shape(9, 2, 70, 3)]

# Limits for the gradient, which has the dtype of the logits. For 16 bits, rounding its elements dominates.
MAX_ERROR = {torch.float32: MAX_GRADIENT_ERROR, torch.float16: 2e-3, torch.bfloat16: 1e-2}
REPEATS = 3

Loss = Callable[..., Tensor]


class Problem:
    """Random logits and targets of full length on the device, and the losses to compare."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        frames, samples, classes, length = shape
        torch.manual_seed(0)
        self.logits = torch.randn(frames, samples, classes, device=device) * 3
        self.targets = torch.randint(1, classes, (samples, length), device=device)
        self.input_lengths = torch.full((samples,), frames)
        self.target_lengths = torch.full((samples,), length)
        self.on_device = self.targets, self.input_lengths.to(device), self.target_lengths.to(device)
        # torch selects cuDNN for concatenated int32 targets on the CPU and lengths that are not tensors.
        self.for_cudnn = self.targets.flatten().int().cpu(), (frames,) * samples, (length,) * samples

    def crnn_ext_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        return ctc_loss(logits, *self.on_device, reduction=reduction)

    def torch_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        """Runs torch's own kernels: int64 targets select them. torch reads the lengths on the CPU."""
        arguments = self.targets, self.input_lengths, self.target_lengths
        return F.ctc_loss(F.log_softmax(logits, -1), *arguments, reduction=reduction)

    def cudnn_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        return F.ctc_loss(F.log_softmax(logits, -1), *self.for_cudnn, reduction=reduction)

    def require_cudnn(self) -> None:
        """Raises NotChosenError if torch does not select cuDNN: it would silently run its own kernels."""
        if not torch._use_cudnn_ctc_loss(F.log_softmax(self.logits, -1), *self.for_cudnn, 0):
            raise NotChosenError


def forward_and_backward(loss: Loss) -> Callable[[Tensor], object]:
    return lambda logits: torch.autograd.grad(loss(logits), logits)


def errors(result: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Returns the relative errors of losses and gradient."""
    (losses, gradient), (exact_losses, exact_gradient) = result, exact
    return {
        "loss error": float(((losses - exact_losses) / exact_losses).abs().max()),
        "gradient error": float((gradient - exact_gradient).norm() / exact_gradient.norm()),
    }


def check(row: Row, loss: Loss, logits: Tensor, exact: tuple[Tensor, Tensor]) -> None:
    """Adds the errors of a loss to its row, and for crnn_ext whether it is correct and reproducible."""
    result = losses_and_gradient(loss, logits)
    row |= errors(result, exact)
    if row["contender"] == "crnn_ext":
        # NaN is not within any limit.
        row["correct"] = (
            row["loss error"] <= MAX_LOSS_ERROR and row["gradient error"] <= MAX_ERROR[logits.dtype]
        )
        again = (losses_and_gradient(loss, logits) for _ in range(REPEATS))
        row["same bits"] = all(all(map(torch.equal, result, other)) for other in again)


def recursion_time(kernels: dict[str, float], frames: int) -> Row:
    """Returns the nanoseconds per frame in the recursion, including the start and the end of its kernel."""
    microseconds = [each for name, each in kernels.items() if "recursion" in name]
    return {"recursion ns a frame": 1e3 * sum(microseconds) / frames} if microseconds else {}


def loss_rows(bench: Bench, shape: Shape, dtype: torch.dtype) -> Iterator[Row]:
    problem = Problem(shape, bench.device)
    logits = problem.logits.to(dtype).requires_grad_()
    exact = losses_and_gradient(problem.torch_loss, logits.double())

    def prepare(row: Row, loss: Loss) -> Callable[[Tensor], object]:
        if row["contender"] == "cuDNN":
            problem.require_cudnn()
        if row["contender"] == "crnn_ext":
            # Two reads of the logits and one write of their gradient.
            row["floor ms"] = 3 * bench.memory_sweep_ms(logits)
        check(row, loss, logits, exact)
        return forward_and_backward(loss)

    losses: dict[str, Loss] = {"crnn_ext": problem.crnn_ext_loss}
    if dtype == torch.float32:
        losses |= {"torch": problem.torch_loss, "cuDNN": problem.cudnn_loss}
    contenders = {name: partial(prepare, loss=loss) for name, loss in losses.items()}
    name = str(dtype).removeprefix("torch.")
    rows = bench.compare("ctc_loss", shape, bench.copies(logits), contenders, name)
    rows["crnn_ext"] |= recursion_time(rows["crnn_ext"].get("kernels us", {}), shape.frames)
    yield from rows.values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        for dtype in MAX_ERROR:
            yield from loss_rows(bench, shape, dtype)
