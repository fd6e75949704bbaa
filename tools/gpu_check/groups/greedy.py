"""greedy_decode compared with torch.argmax over the classes, the minimum that decoding must do."""

from collections.abc import Callable, Iterator

import torch
from rows import Row
from timers import Bench
from torch import Tensor

from crnn_ext.ctc import greedy_decode

SHAPES = [(160, 64, 97), (183, 90, 10241), (80, 256, 6625), (500, 64, 32)]
TINY_SHAPES = [(6, 3, 5), (9, 2, 70)]
MAX_SCORE_ERROR = 1e-5


def is_correct(logits: Tensor) -> bool:
    """Compares with argmax on the CPU, and with log_softmax in float64."""
    result = greedy_decode(logits)
    scores = torch.log_softmax(logits.double(), -1).amax(-1).sum(0)
    if not ((result.scores - scores).abs() <= MAX_SCORE_ERROR * scores.abs()).all():
        return False
    best = logits.argmax(-1).T.cpu()
    for path, tokens, length in zip(best, result.tokens.cpu(), result.lengths.tolist(), strict=True):
        merged = torch.unique_consecutive(path)
        if not torch.equal(merged[merged != 0], tokens[:length]):
            return False
    return True


def shape_rows(bench: Bench, shape: tuple[int, ...]) -> Iterator[Row]:
    torch.manual_seed(0)
    logits = torch.randn(shape, device=bench.device) * 3

    def crnn_ext(row: Row) -> Callable[[Tensor], object]:
        row["floor ms"] = bench.memory_sweep_ms(logits)
        row["correct"] = is_correct(logits)
        return greedy_decode

    contenders = {"crnn_ext": crnn_ext, "torch.argmax": lambda row: lambda logits: logits.argmax(-1)}
    inputs = bench.copies(logits)
    yield from bench.compare("greedy_decode", shape, inputs, contenders, captured=contenders).values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from shape_rows(bench, shape)
