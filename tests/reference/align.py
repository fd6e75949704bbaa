"""Reference alignments: brute force over all paths, and a plain Viterbi recursion."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.logits import score_dtype
from helpers.results import assert_fields

from crnn_ext.ctc import Alignment

NEG_INF = -math.inf


def path_states(path, blank):
    """The lattice states of a path of classes: 2i for the blank before label i, 2i + 1 for label i."""
    states, labels, previous = [], 0, blank
    for token in path:
        if token != blank and token != previous:
            labels += 1
        states.append(2 * labels if token == blank else 2 * labels - 1)
        previous = token
    return states


def brute_force(logits, labels, blank):
    """The states of the best of all C^T paths that collapse to the labels; None if its sum is -inf.

    Among equal paths, the one in the highest state at the last frame wins, then at the frame before, etc.
    """
    rows = logits.double().tolist()
    best = None
    for path in itertools.product(range(logits.shape[1]), repeat=len(rows)):
        if [label for label, _ in itertools.groupby(path) if label != blank] != labels:
            continue
        total = sum(row[token] for row, token in zip(rows, path, strict=True))
        candidate = total, path_states(path, blank)[::-1]
        if total > NEG_INF and (best is None or candidate > best):
            best = candidate
    return None if best is None else best[1][::-1]


def viterbi_path(logits, labels, blank, dtype=np.float64):
    """The result of `brute_force` for any size, with sums in `dtype`; in ties, stay beats step beats skip."""
    rows = logits.double().cpu().numpy().astype(dtype)
    states = 2 * len(labels) + 1
    token = np.full(states, blank)
    token[1::2] = labels
    may_skip = np.zeros(states, dtype=bool)
    may_skip[3::2] = token[3::2] != token[1:-2:2]
    best = np.full(states, NEG_INF, dtype)
    best[0] = 0
    moves = np.empty((len(rows), states), dtype=np.int64)
    for row, move in zip(rows, moves, strict=True):
        step = np.concatenate([[NEG_INF], best])[:states]
        skip = np.where(may_skip, np.concatenate([[NEG_INF] * 2, best])[:states], NEG_INF)
        candidates = np.stack([best, step, skip]).astype(dtype)
        move[:] = candidates.argmax(0)
        best = candidates.max(0) + row[token]
    last = states - 2 if states > 1 and best[-2] > best[-1] else states - 1
    if best[last] == NEG_INF:
        return None
    path = []
    for move in moves[::-1]:
        path.append(last)
        last -= int(move[last])
    return path[::-1]


def expected_alignment(logits, labels, blank, normalize=True, find=viterbi_path):
    """(score, tokens, spans) of one sample's valid frames; a span is (start, end, its log-probabilities).

    The score is NaN if a logit that counts is NaN or +inf, -inf if no path is possible; tokens and spans are
    then empty.
    """
    needed = logits if normalize else logits[:, [blank, *labels]]
    if not bool((needed < math.inf).all()):
        return math.nan, [], []
    path = find(logits, labels, blank)
    if path is None:
        return NEG_INF, [], []
    logits = logits.double()
    log_probs = torch.log_softmax(logits, -1) if normalize else logits
    tokens = [labels[state // 2] if state % 2 else blank for state in path]
    logp = [float(log_probs[t, token]) for t, token in enumerate(tokens)]
    spans = [[] for _ in labels]
    for t, state in enumerate(path):
        if state % 2:
            spans[state // 2].append(t)
    return (
        math.fsum(logp),
        tokens,
        [(span[0], span[-1] + 1, logp[span[0] : span[-1] + 1]) for span in spans],
    )


def check_alignment(
    result, logits, targets, lengths, blank=0, normalize=True, columns=None, find=viterbi_path
):
    """Compares every field of an Alignment; `targets` has a list of labels for each sample."""
    frames, samples, _ = logits.shape
    columns = max(map(len, targets), default=0) if columns is None else columns
    dtype = score_dtype(logits)
    indices = torch.int64, (samples, columns)
    assert_fields(
        result,
        logits.device,
        {
            "tokens": (torch.int64, (samples, frames)),
            "scores": (dtype, (samples,)),
            **dict.fromkeys(("starts", "ends", "peaks"), indices),
            "token_logp": (dtype, (samples, columns)),
        },
    )
    close = {"rel": 1e-12, "abs": 1e-12} if dtype == torch.float64 else {"rel": 2e-6, "abs": 1e-5}
    for n, (labels, length) in enumerate(zip(targets, lengths, strict=True)):
        score, tokens, spans = expected_alignment(logits[:length, n].cpu(), labels, blank, normalize, find)
        assert result.tokens[n].tolist() == tokens + [-1] * (frames - len(tokens))
        assert result.scores[n].item() == pytest.approx(score, nan_ok=True, **close)
        padding = [-1] * (columns - len(spans))
        assert result.starts[n].tolist() == [start for start, _, _ in spans] + padding
        assert result.ends[n].tolist() == [end for _, end, _ in spans] + padding
        token_logp = result.token_logp[n].tolist()
        assert token_logp[: len(spans)] == pytest.approx([np.mean(logp) for *_, logp in spans], **close)
        assert token_logp[len(spans) :] == [0] * len(padding)
        peaks = result.peaks[n].tolist()
        assert peaks[len(spans) :] == padding
        for peak, (start, end, logp) in zip(peaks, spans, strict=False):
            assert start <= peak < end
            assert logp[peak - start] == pytest.approx(max(logp), **close)


def label_lists(targets, target_lengths):
    return [row[:length] for row, length in zip(targets.tolist(), target_lengths.tolist(), strict=True)]


def align_operator(logits, targets, input_lengths, target_lengths, blank=0, normalize=True):
    """The operator itself, which takes K targets per sample."""
    return Alignment(
        *torch.ops.crnn_ext.align.default(logits, targets, input_lengths, target_lengths, blank, normalize)
    )
