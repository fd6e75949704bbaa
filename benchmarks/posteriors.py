"""Real and synthetic network outputs for decoder benchmarks, and the exact log-probability of a text."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# The output of a trained network for a line of handwriting, from github.com/githubharald/CTCDecoder (MIT).
REAL_FILE = Path(__file__).parents[2] / "shared" / "data" / "posteriors" / "ctcdecoder" / "line_rnnOutput.csv"


class Posteriors(NamedTuple):
    name: str
    scores: Tensor  # (T, C) float32, before softmax
    blank: int

    def __str__(self) -> str:
        return f"{self.name}, {' x '.join(map(str, self.scores.shape))}"

    @property
    def log_probs(self) -> Tensor:
        return self.scores.log_softmax(-1)


def real() -> Posteriors:
    """100 x 80, blank last. Raises FileNotFoundError if the file does not exist."""
    lines = REAL_FILE.read_text().splitlines()
    scores = torch.tensor([[float(cell) for cell in line.rstrip(";").split(";")] for line in lines])
    return Posteriors("real", scores, blank=scores.shape[1] - 1)


def flat(frames: int, classes: int) -> Posteriors:
    """randn, like an untrained network: pruning has no effect."""
    scores = torch.randn(frames, classes, generator=torch.Generator().manual_seed(0))
    return Posteriors("flat", scores, blank=0)


def peaked(frames: int, classes: int, seed: int = 0) -> Posteriors:
    """Imitates a trained network: mostly blank, with a narrow peak of a token every 3 to 9 frames.

    Some peaks are weaker than the blank, or spread over three frames. Two less probable tokens accompany each
    peak, as confusions. Elsewhere all tokens together have a probability of about 0.001.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scores = 2 * randn(frames, classes)  # the mean of exp(2 * randn) is exp(2)
    level = math.log(classes) + 9
    scores[:, 0] = level + randn(frames)
    peaks = torch.randint(3, 10, (frames // 3,), generator=generator).cumsum(0)
    peaks = peaks[peaks < frames - 1]
    tokens = torch.randint(1, classes, (len(peaks), 3), generator=generator)
    # Heights of the token and its two confusions above the blank, and how far they fall on either side.
    height = 4 + 2 * randn(len(peaks), 1)
    heights = torch.cat([height, height - 1 - 3 * randn(len(peaks), 2).abs()], 1)
    falls = 2 + 4 * randn(2, len(peaks), 1).abs()
    for shift, fall in ((-1, falls[0]), (0, 0), (1, falls[1])):
        scores[(peaks + shift)[:, None], tokens] = level + heights - fall
    return Posteriors("peaked", scores, blank=0)


def log_p(scores: Tensor, texts: list[list[int]], blank: int = 0) -> Tensor:
    """Exact log-probability of one text per sample: (N,) float64. scores: (T, N, C), before softmax."""
    frames, samples, _ = scores.shape
    targets = [label for text in texts for label in text]
    losses = F.ctc_loss(
        scores.double().log_softmax(-1),
        torch.tensor(targets, dtype=torch.int64, device=scores.device),
        torch.full((samples,), frames),
        torch.tensor([len(text) for text in texts]),
        blank,
        reduction="none",
    )
    return -losses
