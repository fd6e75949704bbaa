"""ctc_loss, forward and backward, beside torch's own kernels and cuDNN."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from bench_ctc_loss import MAX_GRADIENT_ERROR, MAX_LOSS_ERROR, Shape, losses_and_gradient
from rows import NOT_CHOSEN, Row, first_line
from timers import Bench, Contender
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

# Of the gradient, which has the dtype of the logits: for 16 bits, the rounding of each of its numbers.
MAX_ERROR = {torch.float32: MAX_GRADIENT_ERROR, torch.float16: 2e-3, torch.bfloat16: 1e-2}
REPEATS = 3

Loss = Callable[..., Tensor]


class Problem:
    """Random logits and targets of full lengths on the device, and each way to compute their loss."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        frames, samples, classes, length = shape
        torch.manual_seed(0)
        self.logits = torch.randn(frames, samples, classes, device=device) * 3
        self.targets = torch.randint(1, classes, (samples, length), device=device)
        self.input_lengths = torch.full((samples,), frames)
        self.target_lengths = torch.full((samples,), length)
        self.on_device = self.targets, self.input_lengths.to(device), self.target_lengths.to(device)
        # cuDNN is chosen for int32 targets that are concatenated and, lengths being no tensors, on the CPU.
        self.for_cudnn = self.targets.flatten().int().cpu(), (frames,) * samples, (length,) * samples

    def crnn_ext_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        return ctc_loss(logits, *self.on_device, reduction=reduction)

    def torch_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        """By torch's own kernels: int64 targets rule cuDNN out. Lengths are where torch reads them."""
        arguments = self.targets, self.input_lengths, self.target_lengths
        return F.ctc_loss(F.log_softmax(logits, -1), *arguments, reduction=reduction)

    def cudnn_loss(self, logits: Tensor, reduction: str = "mean") -> Tensor:
        return F.ctc_loss(F.log_softmax(logits, -1), *self.for_cudnn, reduction=reduction)

    def cudnn_unavailable(self) -> str | None:
        """Why cuDNN is not timed: where torch does not choose it, it takes its own kernels without a word."""
        try:
            chosen = torch._use_cudnn_ctc_loss(F.log_softmax(self.logits, -1), *self.for_cudnn, 0)
        except Exception as error:
            return first_line(error)
        return None if chosen else NOT_CHOSEN


def forward_and_backward(loss: Loss) -> Callable[[Tensor], object]:
    return lambda logits: torch.autograd.grad(loss(logits), logits)


def errors(result: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Relative errors of losses and gradient."""
    (losses, gradient), (exact_losses, exact_gradient) = result, exact
    return {
        "loss error": float(((losses - exact_losses) / exact_losses).abs().max()),
        "gradient error": float((gradient - exact_gradient).norm() / exact_gradient.norm()),
    }


def checked(name: str, loss: Loss, logits: Tensor, exact: tuple[Tensor, Tensor], row: Row) -> bool:
    """Puts a contender's errors into its row; false if it cannot be run at all."""
    try:
        result = losses_and_gradient(loss, logits)
        row |= errors(result, exact)
        if name == "crnn_ext":
            # NaN is not within any limit.
            row["correct"] = (
                row["loss error"] <= MAX_LOSS_ERROR and row["gradient error"] <= MAX_ERROR[logits.dtype]
            )
            again = (losses_and_gradient(loss, logits) for _ in range(REPEATS))
            row["same bits"] = all(all(map(torch.equal, result, other)) for other in again)
    except Exception as error:
        row["note"] = first_line(error)
        return False
    return True


def recursion(kernels: dict[str, float], frames: int) -> dict[str, float]:
    """Its time a frame, which includes the start and the end of its kernel."""
    microseconds = [each for name, each in kernels.items() if "recursion" in name]
    return {"recursion ns a frame": 1e3 * sum(microseconds) / frames} if microseconds else {}


def rows_of(bench: Bench, shape: Shape, dtype: torch.dtype) -> Iterator[Row]:
    problem = Problem(shape, bench.device)
    logits = problem.logits.to(dtype).requires_grad_()
    losses = {"crnn_ext": problem.crnn_ext_loss}
    if dtype == torch.float32:
        losses |= {"torch": problem.torch_loss, "cuDNN": problem.cudnn_loss}
    exact = losses_and_gradient(problem.torch_loss, logits.double())
    rows = {name: Row("ctc_loss", shape, name, str(dtype).removeprefix("torch.")) for name in losses}
    if "cuDNN" in losses and (note := problem.cudnn_unavailable()):
        rows["cuDNN"]["note"] = note
        del losses["cuDNN"]
    losses = {name: loss for name, loss in losses.items() if checked(name, loss, logits, exact, rows[name])}
    del exact
    contenders = [
        Contender(name, forward_and_backward(loss), capturable=name == "crnn_ext")
        for name, loss in losses.items()
    ]
    inputs = bench.copies(logits)
    for name, times in bench.time(contenders, inputs).items():
        rows[name] |= times
    ours = rows["crnn_ext"]
    # Two reads of the logits and one write of their gradient.
    ours["floor ms"] = 3 * bench.memory_sweep_ms(logits)
    if "crnn_ext" in losses:
        ours |= bench.profile_kernels(contenders[0].over(inputs))
        ours |= recursion(ours.get("kernels us", {}), shape.frames)
    yield from rows.values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        for dtype in MAX_ERROR:
            yield from rows_of(bench, shape, dtype)
