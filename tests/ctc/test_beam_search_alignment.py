"""Timesteps, spans and token log-probabilities of beam_search; exact rescoring."""

import functools
import math

import pytest
import torch
from helpers.beam_search_checks import (
    batches,
    check_invariants,
    hypotheses,
    log_prob_rows,
    texts,
    tolerances,
    torch_log_probs,
)
from helpers.logits import DTYPES, score_dtype
from helpers.results import assert_fields
from hypothesis import given
from hypothesis import strategies as st
from reference.beam_search import MISSING, collapse

from crnn_ext.ctc import beam_search

INF = math.inf


def viterbi_score(rows, text, blank):
    """Log-probability of the best path of the text."""

    @functools.cache
    def best(frame, emitted, last):
        """The best score of the frames from `frame` on, after `emitted` tokens and the class `last`."""
        if frame == len(rows):
            return 0.0 if emitted == len(text) else -INF
        options = [rows[frame][blank] + best(frame + 1, emitted, blank)]
        if last != blank:
            options.append(rows[frame][last] + best(frame + 1, emitted, last))
        if emitted < len(text) and text[emitted] != last:
            options.append(rows[frame][text[emitted]] + best(frame + 1, emitted + 1, text[emitted]))
        return max(options)

    return best(0, 0, blank)


def check_alignment(result, logits, lengths, blank, nbest, input_type="logits"):
    """Checks that the spans are those of some Viterbi path, and the other fields against the spans."""
    frames, samples, _ = logits.shape
    indices = torch.int64, (samples, nbest, frames)
    token_logp = score_dtype(logits), (samples, nbest, frames)
    fields = {**dict.fromkeys(("timesteps", "starts", "ends"), indices), "token_logp": token_logp}
    assert_fields(result, logits.device, fields)
    is_padding = torch.arange(frames, device=logits.device) >= result.lengths.unsqueeze(-1)
    for name in fields:
        padding = 0 if name == "token_logp" else -1
        assert (getattr(result, name)[is_padding] == padding).all(), name

    close = tolerances(logits)
    for n, length in enumerate(lengths):
        rows = log_prob_rows(logits, n, length, input_type)
        for rank, text in enumerate(texts(result, n)):
            timesteps, starts, ends, token_logp = (
                getattr(result, name)[n, rank, : len(text)].tolist()
                for name in ("timesteps", "starts", "ends", "token_logp")
            )
            path = [blank] * int(length)
            for token, start, end in zip(text, starts, ends, strict=True):
                assert 0 <= start < end <= length
                assert path[start:end] == [blank] * (end - start)
                path[start:end] = [token] * (end - start)
            assert collapse(path, blank) == text
            score = sum(row[label] for row, label in zip(rows, path, strict=True))
            assert score == pytest.approx(viterbi_score(rows, text, blank), **close)
            for i, token in enumerate(text):
                span = [row[token] for row in rows[starts[i] : ends[i]]]
                assert token_logp[i] == pytest.approx(sum(span) / len(span), **close)
                assert starts[i] <= timesteps[i] < ends[i]
                assert rows[timesteps[i]][token] == pytest.approx(max(span), **close)


@given(batches(), st.integers(1, 12), st.sampled_from(["logits", "log_probs"]))
def test_beam_search_spans_of_viterbi_path(device, batch, beam_size, input_type):
    logits, lengths, blank = batch
    logits = logits.to(device)
    nbest = min(beam_size, 4)
    options = {"blank": blank, "beam_size": beam_size, "nbest": nbest, "input_type": input_type}
    result = beam_search(logits, lengths, **options)
    check_alignment(result, logits, lengths, blank, nbest, input_type)


@pytest.mark.parametrize("dtype", DTYPES)
def test_beam_search_spans_of_long_texts(device, dtype):
    generator = torch.Generator().manual_seed(4)
    logits = (torch.randn(90, 2, 7, generator=generator) * 2).to(device, dtype)
    result = beam_search(logits, [90, 61], blank=6, beam_size=5, nbest=3)
    check_alignment(result, logits, [90, 61], 6, 3)


def test_beam_search_spans_by_hand(device):
    """Frames count from 0; the timestep is the most probable frame, not necessarily the first."""
    table = [
        [0.90, 0.05, 0.05],
        [0.10, 0.60, 0.30],
        [0.10, 0.85, 0.05],
        [0.10, 0.70, 0.20],
        [0.80, 0.10, 0.10],
        [0.05, 0.75, 0.20],
        [0.10, 0.10, 0.80],
    ]
    log_probs = torch.tensor(table, dtype=torch.float64, device=device).log()
    result = beam_search(log_probs)
    assert result.tokens[0, :4].tolist() == [1, 1, 2, -1]
    assert result.starts[0, :4].tolist() == [1, 5, 6, -1]
    assert result.ends[0, :4].tolist() == [4, 6, 7, -1]
    assert result.timesteps[0, :4].tolist() == [2, 5, 6, -1]
    expected = [math.log(0.6 * 0.85 * 0.7) / 3, math.log(0.75), math.log(0.8), 0]
    assert result.token_logp[0, :4].tolist() == pytest.approx(expected)


def test_beam_search_timestep_ties_take_first_frame(device):
    logits = torch.zeros(4, 1, 2, device=device)
    logits[..., 1] = 5.0
    result = beam_search(logits)
    assert (result.starts[0, 0, 0], result.ends[0, 0, 0], result.timesteps[0, 0, 0]) == (0, 4, 0)


def test_beam_search_spans_without_frames(device):
    result = beam_search(torch.zeros(0, 2, 3, device=device), nbest=2)
    check_alignment(result, torch.zeros(0, 2, 3, device=device), [0, 0], 0, 2)


@given(batches(nonfinite=False), st.integers(1, 12), st.sampled_from(["logits", "log_probs"]))
def test_beam_search_rescored_log_probs_are_exact(device, batch, beam_size, input_type):
    """The texts are those without rescoring; the exact probability is that of torch's loss in float64."""
    logits, lengths, blank = batch
    logits = logits.to(device)
    nbest = min(beam_size, 5)
    options = {"blank": blank, "beam_size": beam_size, "nbest": nbest, "input_type": input_type}
    found = beam_search(logits, lengths, **options)
    result = beam_search(logits, lengths, rescore=True, **options)
    check_invariants(result, logits, lengths, blank, nbest)
    for n, length in enumerate(lengths):
        assert set(texts(result, n)) == set(texts(found, n))
        rows = log_prob_rows(logits, n, length, input_type)
        exact = torch_log_probs(rows, texts(result, n), blank)
        for hypothesis, log_prob in zip(hypotheses(result, n), exact, strict=False):
            assert hypothesis.score == hypothesis.log_prob == pytest.approx(log_prob, **tolerances(logits))
    check_alignment(result, logits, lengths, blank, nbest, input_type)


@pytest.mark.parametrize("token_score", [0.0, 1.3])
def test_beam_search_rescoring_sorts_again(device, token_score):
    """A beam of 4 ranks texts by the probability that it has kept; the exact order may differ."""
    resorted = 0
    for seed in range(40):
        logits = torch.randn(10, 1, 4, generator=torch.Generator().manual_seed(seed)).double().to(device)
        found, result = (
            beam_search(logits, beam_size=4, nbest=4, token_score=token_score, rescore=rescore)
            for rescore in (False, True)
        )
        resorted += texts(found) != texts(result)
        exact = torch_log_probs(log_prob_rows(logits, 0, 10), texts(result), 0)
        assert [h.log_prob for h in hypotheses(result)] == pytest.approx(exact, abs=1e-9)
        scores = [
            log_prob + token_score * len(text) for log_prob, text in zip(exact, texts(result), strict=True)
        ]
        assert [h.score for h in hypotheses(result)] == pytest.approx(scores, abs=1e-9)
        assert scores == sorted(scores, reverse=True)
    assert resorted > 0


def test_beam_search_rescoring_keeps_missing_and_invalid(device):
    logits = torch.zeros(2, 3, 2, device=device)
    logits[1, 1] = math.nan
    logits[1, 2] = -INF
    plain, result = (beam_search(logits, nbest=5, rescore=rescore) for rescore in (False, True))
    check_invariants(result, logits, [2] * 3, 0, 5)
    for field, expected in zip(result, plain, strict=True):
        torch.testing.assert_close(field, expected, equal_nan=True)
    assert hypotheses(result, 2) == [MISSING] * 5
