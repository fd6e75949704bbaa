"""References for the alignment: all paths, and a plain Viterbi recursion."""

import itertools
import math

import numpy as np
import torch

IMPOSSIBLE = -math.inf


def states_of(path, blank):
    """The states that a path of classes goes through: 2i for the blank before label i, 2i + 1 for label i."""
    states, labels, previous = [], 0, blank
    for token in path:
        if token != blank and token != previous:
            labels += 1
        states.append(2 * labels if token == blank else 2 * labels - 1)
        previous = token
    return states


def brute_force(logits, labels, blank):
    """The states of the best of all C^T paths that collapse to the labels; None if its sum is -inf.

    Of equal ones, that which is in the highest state at the last frame, then at the one before it, and so on.
    """
    rows = logits.double().tolist()
    best = None
    for path in itertools.product(range(logits.shape[1]), repeat=len(rows)):
        if [label for label, _ in itertools.groupby(path) if label != blank] != labels:
            continue
        total = sum(row[token] for row, token in zip(rows, path, strict=True))
        candidate = total, states_of(path, blank)[::-1]
        if total > IMPOSSIBLE and (best is None or candidate > best):
            best = candidate
    return None if best is None else best[1][::-1]


def best_path(logits, labels, blank, dtype=np.float64):
    """The same for any size, with sums of that dtype; the first of stay, step and skip wins ties."""
    rows = logits.double().cpu().numpy().astype(dtype)
    states = 2 * len(labels) + 1
    token = np.full(states, blank)
    token[1::2] = labels
    may_skip = np.zeros(states, dtype=bool)
    may_skip[3::2] = token[3::2] != token[1:-2:2]
    best = np.full(states, IMPOSSIBLE, dtype)
    best[0] = 0
    moves = np.empty((len(rows), states), dtype=np.int64)
    for row, move in zip(rows, moves, strict=True):
        step = np.concatenate([[IMPOSSIBLE], best])[:states]
        skip = np.where(may_skip, np.concatenate([[IMPOSSIBLE] * 2, best])[:states], IMPOSSIBLE)
        candidates = np.stack([best, step, skip]).astype(dtype)
        move[:] = candidates.argmax(0)
        best = candidates.max(0) + row[token]
    last = states - 2 if states > 1 and best[-2] > best[-1] else states - 1
    if best[last] == IMPOSSIBLE:
        return None
    path = []
    for move in moves[::-1]:
        path.append(last)
        last -= int(move[last])
    return path[::-1]


def expected(logits, labels, blank, normalize=True, find=best_path):
    """(score, tokens, spans) of one sample's live frames; a span is [start, end, log-probabilities in it].

    The score is NaN for logits that have no best path, -inf if there is none; both without tokens and spans.
    """
    needed = logits if normalize else logits[:, [blank, *labels]]
    if not bool((needed < math.inf).all()):
        return math.nan, [], []
    path = find(logits, labels, blank)
    if path is None:
        return IMPOSSIBLE, [], []
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
