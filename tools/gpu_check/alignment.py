"""align compared with torchaudio's forced_align, and log_probability with torch's loss.

forced_align takes one sample at a time. For K texts per sample, torch's loss takes K copies of the logits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rows import Row, new_row, note_errors
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
    ours, theirs = (new_row("align", shape[:4], name) for name in ("crnn_ext", "forced_align"))
    ours["floor ms"] = bench.memory_sweep_ms(problem.logits)
    contenders = []
    with note_errors(ours):
        ours["correct"] = is_aligned(problem)
        contenders.append(
            Contender("crnn_ext", lambda logits: align(logits, *problem.first_texts()), capturable=True)
        )
    with note_errors(theirs):
        from torchaudio.functional import forced_align

        def one_by_one(logits: Tensor) -> object:
            log_probs = logits.log_softmax(-1).transpose(0, 1).contiguous()
            return [forced_align(log_probs[n : n + 1], problem.targets[n]) for n in range(shape.samples)]

        contenders.append(Contender("forced_align", one_by_one))
    inputs = bench.copies(problem.logits)
    bench.time([ours, theirs], contenders, inputs)
    if "note" not in ours:
        ours |= bench.profile_kernels(contenders[0].over(inputs))
    yield from (ours, theirs)


def log_probability_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    problem = Problem(shape, bench.device)
    ours, theirs = (new_row("log_probability", shape, name) for name in ("crnn_ext", "torch"))
    ours["floor ms"] = bench.memory_sweep_ms(problem.logits)

    def crnn_ext_log_probability(logits: Tensor) -> Tensor:
        return log_probability(logits, problem.targets, problem.input_lengths, problem.target_lengths)

    def torch_log_probability(logits: Tensor) -> Tensor:
        copies = logits.log_softmax(-1).repeat_interleave(shape.texts, 1)
        lengths = problem.input_lengths.repeat_interleave(shape.texts), problem.target_lengths.flatten()
        return -F.ctc_loss(copies, problem.targets.flatten(0, 1), *lengths, reduction="none")

    contenders = [Contender("torch", torch_log_probability)]
    with note_errors(ours):
        exact = torch_log_probability(problem.logits.double()).view(shape.samples, shape.texts)
        ours["correct"] = is_close(crnn_ext_log_probability(problem.logits), exact)
        contenders.append(Contender("crnn_ext", crnn_ext_log_probability, capturable=True))
    bench.time([ours, theirs], contenders, bench.copies(problem.logits))
    yield from (ours, theirs)


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from alignment_rows(bench, shape)
    yield from log_probability_rows(bench, TINY_SEVERAL_TEXTS if tiny else SEVERAL_TEXTS)
