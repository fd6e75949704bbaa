"""Pruning of beam_search: token_top_k, token_min_logp and beam_threshold."""

import math

import pytest
import torch
from helpers.beam_search_checks import batches, check_against_reference, hypotheses, texts
from helpers.pruning_cases import CASES, ROWS
from hypothesis import assume, given
from hypothesis import strategies as st

from crnn_ext.ctc import beam_search

INF = math.inf


@given(
    batches(),
    st.integers(1, 30),
    st.none() | st.integers(1, 14),
    st.none() | st.floats(-12, 0),
    st.none() | st.floats(0, 15),
    st.sampled_from(["logits", "log_probs"]),
)
def test_beam_search_pruned_equals_reference(
    device, batch, beam_size, top_k, min_logp, threshold, input_type
):
    logits, lengths, blank = batch
    logits = logits.to(device)
    options = {
        "blank": blank,
        "beam_size": beam_size,
        "nbest": min(5, beam_size),
        "token_top_k": top_k,
        "token_min_logp": min_logp,
        "beam_threshold": threshold,
        "input_type": input_type,
    }
    compared = check_against_reference(beam_search(logits, lengths, **options), logits, lengths, **options)
    assume(compared or not len(lengths))


def log_probs_of(device, *rows):
    return torch.tensor(rows, dtype=torch.float64, device=device).log().unsqueeze(1)


@pytest.mark.parametrize(("options", "expected"), CASES)
def test_beam_search_pruning_by_hand(device, options, expected):
    result = beam_search(log_probs_of(device, *ROWS), **{"nbest": 6, **options})
    assert texts(result) == expected


def test_beam_search_pruning_keeps_probability_of_kept_prefixes(device):
    result = beam_search(log_probs_of(device, *ROWS), nbest=3, token_min_logp=math.log(0.25))
    scores = {text: math.exp(score) for text, score, _ in hypotheses(result)}
    # A new (1,) is allowed in frame 0 only, but (1,) is kept: it gets 1 blank, 1 1, and blank 1.
    assert scores[1,] == pytest.approx(0.3 * 0.1 + 0.3 * 0.2 + 0.5 * 0.2)
    # A new (2,) is allowed in frame 1 only: the paths pruned in frame 0 are lost.
    assert scores[2,] == pytest.approx(0.5 * 0.7)
    assert scores[1, 2] == pytest.approx(0.3 * 0.7)


def test_beam_search_never_prunes_blank(device):
    """A blank that is least probable in every frame still separates equal tokens."""
    log_probs = log_probs_of(device, [0.04, 0.9, 0.06], [0.04, 0.05, 0.91], [0.04, 0.9, 0.06])
    for options in ({"token_top_k": 1}, {"token_min_logp": math.log(0.5)}):
        result = beam_search(log_probs, beam_size=50, nbest=9, **options)
        assert set(texts(result)) == {(), (1,), (2,), (1, 2), (2, 1), (1, 1), (1, 2, 1)}
        scores = {text: math.exp(score) for text, score, _ in hypotheses(result)}
        assert scores[()] == pytest.approx(0.04**3)


def test_beam_search_token_top_k_ties_keep_lower_class(device):
    logits = torch.zeros(1, 1, 6, device=device)
    logits[..., 4] = -1.0
    for count, expected in [(1, [0]), (2, [0, 1]), (3, [0, 1, 3]), (4, [0, 1, 3, 5]), (5, [0, 1, 3, 5, 4])]:
        result = beam_search(logits, blank=2, token_top_k=count, nbest=6)
        assert texts(result) == [(), *((token,) for token in expected)]


def test_beam_search_always_prunes_probability_zero(device):
    logits = torch.zeros(2, 1, 4, device=device)
    logits[..., 3] = -INF
    for options in ({"token_top_k": 3}, {"token_min_logp": -INF}, {"beam_threshold": INF}):
        result = beam_search(logits, nbest=9, **options)
        assert set(texts(result)) == {(), (1,), (2,), (1, 2), (2, 1)}


def test_beam_search_limits_apply_to_log_probs(device):
    """Limits apply after the softmax of logits, and to log-probabilities as they are."""
    logits = log_probs_of(device, *ROWS) + torch.tensor([[[40.0]], [[-25.0]]], device=device)
    for limit, expected in [(math.log(0.69), [(2,), ()]), (math.log(0.71), [()])]:
        assert texts(beam_search(logits, nbest=6, token_min_logp=limit)) == expected
    result = beam_search(logits, nbest=6, token_min_logp=0.0, input_type="log_probs")
    assert texts(result) == [(2,), (1,), ()]


def test_beam_search_threshold_zero_keeps_ties(device):
    logits = torch.zeros(1, 1, 3, device=device)
    assert texts(beam_search(logits, beam_threshold=0.0, nbest=4)) == [(), (1,), (2,)]
