"""align beside torchaudio's forced_align, and log_probability beside torch's loss.

forced_align takes one sample at a time, and the loss of K texts a sample takes the logits K times.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rows import Row, first_line
from timers import Bench, Contender
from torch import Tensor

from crnn_ext.ctc import align, log_probability


class Shape(NamedTuple):
    frames: int
    samples: int
    classes: int
    length: int
    texts: int = 1


SHAPES = [Shape(200, 64, 100, 40), Shape(1500, 64, 500, 200)]
TINY_SHAPES = [Shape(9, 2, 5, 2), Shape(40, 3, 70, 9)]
SEVERAL_TEXTS, TINY_SEVERAL_TEXTS = Shape(200, 64, 100, 40, 16), Shape(9, 2, 5, 2, 3)
MAX_SCORE_ERROR = 1e-5


class Problem:
    """Random logits and K targets a sample, all of full length, on the device."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        frames, samples, classes, length, texts = shape
        torch.manual_seed(0)
        self.logits = torch.randn(frames, samples, classes, device=device) * 3
        self.targets = torch.randint(1, classes, (samples, texts, length), device=device)
        self.input_lengths = torch.full((samples,), frames, device=device)
        self.target_lengths = torch.full((samples, texts), length, device=device)

    def first_texts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.targets[:, 0], self.input_lengths, self.target_lengths[:, 0]


def close(scores: Tensor, exact: Tensor) -> bool:
    return bool(((scores - exact).abs() <= MAX_SCORE_ERROR * exact.abs()).all())


def is_aligned(problem: Problem) -> bool:
    """The path of the CPU's kernels, whose sums are the same, and its score by log_softmax in float64."""
    found = align(problem.logits, *problem.first_texts())
    on_cpu = align(problem.logits.cpu(), *(tensor.cpu() for tensor in problem.first_texts()))
    log_probs = problem.logits.double().log_softmax(-1).transpose(0, 1)
    scores = log_probs.gather(-1, found.tokens[..., None]).sum((1, 2))
    return torch.equal(found.tokens.cpu(), on_cpu.tokens) and close(found.scores, scores)


def row_of_ours(bench: Bench, op: str, shape: tuple[int, ...], problem: Problem) -> Row:
    return Row(op, shape, "crnn_ext") | {"floor ms": bench.memory_sweep_ms(problem.logits)}


def alignment_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    problem = Problem(shape, bench.device)
    ours = row_of_ours(bench, "align", shape[:4], problem)
    theirs = Row("align", shape[:4], "forced_align")
    contenders = []

    def of_ours(logits: Tensor) -> object:
        return align(logits, *problem.first_texts())

    try:
        ours["correct"] = is_aligned(problem)
        contenders.append(Contender("crnn_ext", of_ours, capturable=True))
    except Exception as error:
        ours["note"] = first_line(error)
    try:
        from torchaudio.functional import forced_align

        def one_by_one(logits: Tensor) -> object:
            log_probs = logits.log_softmax(-1).transpose(0, 1).contiguous()
            return [forced_align(log_probs[n : n + 1], problem.targets[n]) for n in range(shape.samples)]

        contenders.append(Contender("forced_align", one_by_one))
    except Exception as error:
        theirs["note"] = first_line(error)
    inputs = bench.copies(problem.logits)
    times = bench.time(contenders, inputs)
    if "note" not in ours:
        ours |= bench.profile_kernels(contenders[0].over(inputs))
    for row in (ours, theirs):
        yield row | times.get(row["contender"], {})


def log_probability_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    problem = Problem(shape, bench.device)
    ours, theirs = (
        row_of_ours(bench, "log_probability", shape, problem),
        Row("log_probability", shape, "torch"),
    )

    def of_ours(logits: Tensor) -> Tensor:
        return log_probability(logits, problem.targets, problem.input_lengths, problem.target_lengths)

    def of_torch(logits: Tensor) -> Tensor:
        several = logits.log_softmax(-1).repeat_interleave(shape.texts, 1)
        lengths = problem.input_lengths.repeat_interleave(shape.texts), problem.target_lengths.flatten()
        return -F.ctc_loss(several, problem.targets.flatten(0, 1), *lengths, reduction="none")

    contenders = [Contender("torch", of_torch)]
    try:
        exact = of_torch(problem.logits.double()).view(shape.samples, shape.texts)
        ours["correct"] = close(of_ours(problem.logits), exact)
        contenders.append(Contender("crnn_ext", of_ours, capturable=True))
    except Exception as error:
        ours["note"] = first_line(error)
    times = bench.time(contenders, bench.copies(problem.logits))
    for row in (ours, theirs):
        yield row | times.get(row["contender"], {})


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from alignment_rows(bench, shape)
    yield from log_probability_rows(bench, TINY_SEVERAL_TEXTS if tiny else SEVERAL_TEXTS)
