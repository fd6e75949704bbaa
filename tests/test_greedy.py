"""greedy_decode against a plain Python collapse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_ext.ctc import greedy_decode


def collapse(log_probs, blank):
    """(token, start, end, mean log-probability) of each run of one class other than blank."""
    runs = []
    previous = blank
    for t, row in enumerate(log_probs.tolist()):
        best = row.index(max(row))
        if best != blank and best != previous:
            runs.append([best, t, t, []])
        if best != blank:
            runs[-1][2] = t + 1
            runs[-1][3].append(row[best])
        previous = best
    return [(token, start, end, math.fsum(logps) / len(logps)) for token, start, end, logps in runs]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 30), st.integers(0, 4), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_equals_plain_collapse(frames, samples, classes, seed, ties):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, samples, classes, generator=generator) * 3
    logits = (logits / 3).round().double() if ties else logits
    blank = seed % classes
    lengths = torch.randint(0, frames + 1, (samples,), generator=generator)
    result = greedy_decode(logits, lengths, blank=blank)
    log_probs = torch.log_softmax(logits.double(), -1)
    for n in range(samples):
        live = log_probs[: lengths[n], n]
        # Ties are decided on the logits: log_softmax may round two of them apart.
        order = [(logits[t, n] == logits[t, n].max()).int().argmax() for t in range(len(live))]
        runs = collapse(live, blank)
        count = int(result.lengths[n])
        assert result.tokens[n, :count].tolist() == [run[0] for run in runs]
        assert result.starts[n, :count].tolist() == [run[1] for run in runs]
        assert result.ends[n, :count].tolist() == [run[2] for run in runs]
        assert (result.tokens[n, count:] == -1).all()
        assert result.token_logp[n, :count].tolist() == pytest.approx([run[3] for run in runs], abs=1e-5)
        best = sum(float(live[t, c]) for t, c in enumerate(order))
        assert float(result.scores[n]) == pytest.approx(best, abs=1e-4)


def test_unbatched_and_errors():
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    result = greedy_decode(logits)
    assert result.tokens.tolist() == [1, 1, -1, -1]
    assert result.starts[:2].tolist() == [0, 3]
    with pytest.raises(ValueError, match=r"input_lengths\[0\] is 9, but logits has T=4 frames"):
        greedy_decode(logits, 9)
    torch.library.opcheck(
        torch.ops.crnn_ext.greedy_decode.default, (logits[:, None], torch.tensor([4]), 0, True)
    )
