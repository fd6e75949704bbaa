"""beam_search beside torchaudio's cuda_ctc_decoder, on what a trained network puts out.

The peer takes log-probabilities, batch first; they are made outside of its time. Timed is its search, with
the copy of its results to the CPU, without the lists and words that it makes of them there. It has a row for
reading every frame, as ours does, and one for its default: frames where the blank is surer than 0.95 are
passed over, also in the scores.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from posteriors import log_p, peaked
from rows import Row, first_line
from timers import Bench, Contender
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
# Frames are passed over where the blank's probability is above that.
PEERS = {"cuda_ctc_decoder": 1.0, "blanks skipped": 0.95}


def network_output(shape: Shape, device: torch.device) -> Tensor:
    samples = [peaked(shape.frames, shape.classes, seed).scores for seed in range(shape.samples)]
    return torch.stack(samples, 1).to(device)


def checked(logits: Tensor, beam: int) -> dict[str, object]:
    """Scores are those of the CPU, and none is above the exact log-probability of its text."""
    tokens, lengths, scores, *_ = (part[:, 0] for part in beam_search(logits, beam_size=beam))
    on_cpu = beam_search(logits.cpu(), beam_size=beam).scores[:, 0].double()
    texts = [text[:length] for text, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    exact, scores = log_p(logits, texts).cpu(), scores.double().cpu()
    within = MAX_SCORE_ERROR * exact.abs()
    correct = ((scores - on_cpu).abs() <= within) & (scores <= exact + within)
    return {"correct": bool(correct.all()), "log P": exact.mean().item()}


def peer_search(shape: Shape, threshold: float, nbest: int, device: torch.device) -> Callable[[Tensor], Any]:
    """Of log-probabilities (N, T, C). The search itself is the same for any nbest, also for 0."""
    from torchaudio.models.decoder import cuda_ctc_decoder

    tokens = [str(index) for index in range(shape.classes)]
    decoder = cuda_ctc_decoder(tokens, nbest, shape.beam, blank_skip_threshold=threshold)
    lengths = torch.full((shape.samples,), shape.frames, dtype=torch.int32, device=device)
    return lambda log_probs: decoder(log_probs, lengths)


def rows_of(bench: Bench, shape: Shape) -> Iterator[Row]:
    logits = network_output(shape, bench.device)
    # What we take, and what the peer takes.
    inputs = [(copy, copy.log_softmax(-1).transpose(0, 1).contiguous()) for copy in bench.copies(logits)]
    rows = {name: Row("beam_search", shape, name) for name in ("crnn_ext", *PEERS)}
    contenders = []
    ours = rows["crnn_ext"]
    ours["floor ms"] = bench.memory_sweep_ms(logits)
    try:
        ours |= checked(logits, shape.beam)
        contenders.append(
            Contender("crnn_ext", lambda pair: beam_search(pair[0], beam_size=shape.beam), capturable=True)
        )
    except Exception as error:
        ours["note"] = first_line(error)
    for name, threshold in PEERS.items():
        try:
            (_, log_probs), *_ = inputs
            found = peer_search(shape, threshold, 1, bench.device)(log_probs)
            texts = [[int(token) for token in best.tokens] for (best,) in found]
            rows[name]["log P"] = log_p(logits, texts).mean().item()
            search = peer_search(shape, threshold, 0, bench.device)
            contenders.append(Contender(name, lambda pair, search=search: search(pair[1])))
        except Exception as error:
            rows[name]["note"] = first_line(error)
    for name, times in bench.time(contenders, inputs).items():
        rows[name] |= times
    if "note" not in ours:
        ours |= bench.profile_kernels(contenders[0].over(inputs))
    yield from rows.values()


def rows(bench: Bench, tiny: bool) -> Iterator[Row]:
    for shape in TINY_SHAPES if tiny else SHAPES:
        yield from rows_of(bench, shape)
