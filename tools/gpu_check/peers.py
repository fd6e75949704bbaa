"""Peers from other packages, where they are installed: optax through JAX, and torchaudio's aligner.

Nothing here is a dependency, so everything is imported only where it is called.
"""

from collections.abc import Iterator

import torch
from bench_ctc_loss import Shape
from loss import SHAPES, TINY_SHAPES, Problem, errors, forward_and_backward, losses_and_gradient
from rows import Row, first_line
from timers import Bench, Contender, HostTimer, durations
from torch import Tensor


def optax_row(bench: Bench, shape: Shape) -> Row:
    """Forward and backward under jax.jit, which has its own stream: timed by the host, each call awaited."""
    row = Row("ctc_loss", shape, "optax")
    try:
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

        # One function, as XLA takes seconds to compile it for each shape.
        both = jax.jit(jax.value_and_grad(total, has_aux=True))
        inputs = [jax.numpy.asarray(copy) for copy in batch_first]
        (_, losses), gradient = both(inputs[0])
        result = _tensor(jax.device_get(losses)), _tensor(jax.device_get(gradient)).transpose(0, 1)
        row |= errors(result, exact)
        awaited = Contender("optax", lambda logits: jax.block_until_ready(both(logits)))
        row |= durations({"optax": awaited.over(inputs)}, HostTimer(), bench.seconds)["optax"].in_ms("eager")
    except Exception as error:
        row["note"] = first_line(error)
    return row


def _tensor(array) -> Tensor:
    """In float64. NumPy's view of what JAX gives cannot be written."""
    return torch.from_numpy(array.copy()).double()


def alignment_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    """The loss of a single sample beside torchaudio's best path for it, which takes one sample at a time."""
    shape = shape._replace(samples=1)
    problem = Problem(shape, bench.device)
    ours, theirs = Row("one sample", shape, "crnn_ext"), Row("one sample", shape, "forced_align")
    contenders = [Contender(ours["contender"], forward_and_backward(problem.crnn_ext_loss), capturable=True)]
    try:
        from torchaudio.functional import forced_align

        def aligned(logits: Tensor) -> object:
            return forced_align(logits.detach().log_softmax(-1).transpose(0, 1), problem.targets)

        contenders.append(Contender(theirs["contender"], aligned))
    except Exception as error:
        theirs["note"] = first_line(error)
    times = bench.time(contenders, bench.copies(problem.logits.requires_grad_()))
    for row in (ours, theirs):
        yield row | times.get(row["contender"], {})


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from alignment_rows(bench, shape)
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield optax_row(bench, shape)
