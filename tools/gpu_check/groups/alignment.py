"""align compared with torchaudio's forced_align, and log_probability with torch's loss.

forced_align takes one sample at a time. For K texts per sample, torch's loss takes K copies of the logits.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rows import Row
from timers import Bench
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
    """Random logits and K targets per sample, all of full length, on the device."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        frames, samples, classes, length, texts = shape
        torch.manual_seed(0)
        self.logits = torch.randn(frames, samples, classes, device=device) * 3
        self.targets = torch.randint(1, classes, (samples, texts, length), device=device)
        self.input_lengths = torch.full((samples,), frames, device=device)
        self.target_lengths = torch.full((samples, texts), length, device=device)

    def first_texts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.targets[:, 0], self.input_lengths, self.target_lengths[:, 0]


def is_close(scores: Tensor, exact: Tensor) -> bool:
    return bool(((scores - exact).abs() <= MAX_SCORE_ERROR * exact.abs()).all())


def is_aligned(problem: Problem) -> bool:
    """Compares the path with the CPU's, whose sums are equal, and the score with log_softmax in float64."""
    found = align(problem.logits, *problem.first_texts())
    on_cpu = align(problem.logits.cpu(), *(tensor.cpu() for tensor in problem.first_texts()))
    log_probs = problem.logits.double().log_softmax(-1).transpose(0, 1)
    scores = log_probs.gather(-1, found.tokens[..., None]).sum((1, 2))
    return torch.equal(found.tokens.cpu(), on_cpu.tokens) and is_close(found.scores, scores)


def alignment_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    problem = Problem(shape, bench.device)

    def crnn_ext(row: Row) -> Callable[[Tensor], object]:
        row["floor ms"] = bench.memory_sweep_ms(problem.logits)
        row["correct"] = is_aligned(problem)
        return lambda logits: align(logits, *problem.first_texts())

    def torchaudio(row: Row) -> Callable[[Tensor], object]:
        from torchaudio.functional import forced_align

        def one_by_one(logits: Tensor) -> object:
            log_probs = logits.log_softmax(-1).transpose(0, 1).contiguous()
            return [forced_align(log_probs[n : n + 1], problem.targets[n]) for n in range(shape.samples)]

        return one_by_one

    contenders = {"crnn_ext": crnn_ext, "forced_align": torchaudio}
    yield from bench.compare("align", shape[:4], bench.copies(problem.logits), contenders).values()


def log_probability_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    problem = Problem(shape, bench.device)

    def crnn_ext_log_probability(logits: Tensor) -> Tensor:
        return log_probability(logits, problem.targets, problem.input_lengths, problem.target_lengths)

    def torch_log_probability(logits: Tensor) -> Tensor:
        copies = logits.log_softmax(-1).repeat_interleave(shape.texts, 1)
        lengths = problem.input_lengths.repeat_interleave(shape.texts), problem.target_lengths.flatten()
        return -F.ctc_loss(copies, problem.targets.flatten(0, 1), *lengths, reduction="none")

    def crnn_ext(row: Row) -> Callable[[Tensor], object]:
        row["floor ms"] = bench.memory_sweep_ms(problem.logits)
        exact = torch_log_probability(problem.logits.double()).view(shape.samples, shape.texts)
        row["correct"] = is_close(crnn_ext_log_probability(problem.logits), exact)
        return crnn_ext_log_probability

    contenders = {"crnn_ext": crnn_ext, "torch": lambda row: torch_log_probability}
    yield from bench.compare("log_probability", shape, bench.copies(problem.logits), contenders).values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from alignment_rows(bench, shape)
    yield from log_probability_rows(bench, TINY_SEVERAL_TEXTS if tiny else SEVERAL_TEXTS)
