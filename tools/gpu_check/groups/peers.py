"""Optional peers of ctc_loss: optax through JAX, and torchaudio's aligner for one sample.

The packages are imported where they are used.
"""

from collections.abc import Callable, Iterator

import torch
from bench_ctc_loss import Shape
from groups.loss import SHAPES, TINY_SHAPES, Problem, errors, forward_and_backward, losses_and_gradient
from rows import Row, new_row, note_errors
from timers import Bench, rotate, time_fields
from timing import wall_clock
from torch import Tensor


def optax_row(bench: Bench, shape: Shape) -> Row:
    """Times forward and backward under jax.jit. JAX has its own stream, so the host waits for each call."""
    row = new_row("ctc_loss", shape, "optax")
    with note_errors(row):
        import jax
        import optax

        if bench.device.type == "cuda" and jax.default_backend() == "cpu":
            raise RuntimeError("JAX sees no GPU")
        problem = Problem(shape, bench.device)
        exact = losses_and_gradient(problem.torch_loss, problem.logits.double())
        exact = tuple(part.cpu() for part in exact)
        batch_first = [copy.transpose(0, 1).cpu().numpy() for copy in bench.copies(problem.logits)]
        labels = jax.numpy.asarray(problem.targets.cpu().numpy().astype("int32"))
        logit_paddings = jax.numpy.zeros((shape.samples, shape.frames))
        label_paddings = jax.numpy.zeros(labels.shape)

        def total(logits):
            losses = optax.losses.ctc_loss(logits, logit_paddings, labels, label_paddings)
            return losses.sum(), losses

        # Compiled once for checking and timing: XLA takes seconds per function and shape.
        compiled = jax.jit(jax.value_and_grad(total, has_aux=True))
        inputs = [jax.numpy.asarray(copy) for copy in batch_first]
        (_, losses), gradient = compiled(inputs[0])
        result = _tensor(jax.device_get(losses)), _tensor(jax.device_get(gradient)).transpose(0, 1)
        row |= errors(result, exact)
        call = rotate(lambda logits: jax.block_until_ready(compiled(logits)), inputs)
        row |= time_fields({"optax": call}, bench.seconds, "eager", wall_clock)["optax"]
    return row


def _tensor(array) -> Tensor:
    """Converts to float64. Copies, because arrays of JAX are read-only."""
    return torch.from_numpy(array.copy()).double()


def one_sample_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    """Times the loss of one sample and torchaudio's best path for it."""
    shape = shape._replace(samples=1)
    problem = Problem(shape, bench.device)

    def torchaudio(row: Row) -> Callable[[Tensor], object]:
        from torchaudio.functional import forced_align

        return lambda logits: forced_align(logits.detach().log_softmax(-1).transpose(0, 1), problem.targets)

    contenders = {
        "crnn_ext": lambda row: forward_and_backward(problem.crnn_ext_loss),
        "forced_align": torchaudio,
    }
    inputs = bench.copies(problem.logits.requires_grad_())
    yield from bench.compare("one sample", shape, inputs, contenders).values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from one_sample_rows(bench, shape)
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield optax_row(bench, shape)
