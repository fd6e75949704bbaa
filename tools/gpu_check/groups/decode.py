"""beam_search compared with torchaudio's cuda_ctc_decoder, on synthetic outputs of a trained network.

The input of the peer, batch-first log-probabilities, is prepared outside the timed call. Its time includes
the search and the copy of the results to the CPU, but not their conversion to lists and words. It has two
rows: one reads every frame, as crnn_ext does; the other is its default, which skips frames whose blank
probability is above 0.95, also in the scores.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from posteriors import log_p, peaked
from rows import Row
from timers import Bench
from torch import Tensor

from crnn_ext.ctc import beam_search


class Shape(NamedTuple):
    frames: int
    samples: int
    classes: int
    beam: int


SHAPES = [
    Shape(200, 1, 5000, 10),
    Shape(200, 16, 5000, 10),
    Shape(200, 64, 5000, 10),
    Shape(150, 256, 100, 32),
]
TINY_SHAPES = [Shape(12, 3, 5, 2), Shape(15, 2, 70, 4)]
MAX_SCORE_ERROR = 1e-5
# The blank probability above which a frame is skipped.
PEERS = {"cuda_ctc_decoder": 1.0, "blanks skipped": 0.95}


def network_output(shape: Shape, device: torch.device) -> Tensor:
    samples = [peaked(shape.frames, shape.classes, seed).scores for seed in range(shape.samples)]
    return torch.stack(samples, 1).to(device)


def check(logits: Tensor, beam: int) -> Row:
    """Compares the scores with the CPU's and with exact log-probabilities, their upper bounds."""
    tokens, lengths, scores, *_ = (part[:, 0] for part in beam_search(logits, beam_size=beam))
    on_cpu = beam_search(logits.cpu(), beam_size=beam).scores[:, 0].double()
    texts = [text[:length] for text, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    exact, scores = log_p(logits, texts).cpu(), scores.double().cpu()
    within = MAX_SCORE_ERROR * exact.abs()
    correct = ((scores - on_cpu).abs() <= within) & (scores <= exact + within)
    return {"correct": bool(correct.all()), "log P": exact.mean().item()}


def peer_search(shape: Shape, threshold: float, nbest: int, device: torch.device) -> Callable[[Tensor], Any]:
    """Returns the peer's search of log-probabilities (N, T, C). nbest, also 0, only affects the output."""
    from torchaudio.models.decoder import cuda_ctc_decoder

    tokens = [str(index) for index in range(shape.classes)]
    decoder = cuda_ctc_decoder(tokens, nbest, shape.beam, blank_skip_threshold=threshold)
    lengths = torch.full((shape.samples,), shape.frames, dtype=torch.int32, device=device)
    return lambda log_probs: decoder(log_probs, lengths)


def search_rows(bench: Bench, shape: Shape) -> Iterator[Row]:
    logits = network_output(shape, bench.device)
    # The input of crnn_ext and that of the peer.
    inputs = [(copy, copy.log_softmax(-1).transpose(0, 1).contiguous()) for copy in bench.copies(logits)]

    def crnn_ext(row: Row) -> Callable[..., object]:
        row["floor ms"] = bench.memory_sweep_ms(logits)
        row |= check(logits, shape.beam)
        return lambda pair: beam_search(pair[0], beam_size=shape.beam)

    def torchaudio(row: Row, threshold: float) -> Callable[..., object]:
        found = peer_search(shape, threshold, 1, bench.device)(inputs[0][1])
        texts = [[int(token) for token in best.tokens] for (best,) in found]
        row["log P"] = log_p(logits, texts).mean().item()
        search = peer_search(shape, threshold, 0, bench.device)
        return lambda pair: search(pair[1])

    peers = {name: partial(torchaudio, threshold=threshold) for name, threshold in PEERS.items()}
    yield from bench.compare("beam_search", shape, inputs, {"crnn_ext": crnn_ext, **peers}).values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from search_rows(bench, shape)
