"""beam_search against brute force, against torch's loss, and against a plain search with the same beam."""

import pytest
import torch
from helpers.beam_search_checks import (
    batches,
    check_against_reference,
    check_invariants,
    hypotheses,
    log_prob_rows,
    texts,
    tolerances,
    torch_log_probs,
)
from helpers.fuzz import slow_examples
from helpers.logits import DTYPES, LAYOUTS, random_logits, with_layout
from helpers.results import assert_bitwise_equal
from hypothesis import assume, given
from hypothesis import strategies as st
from reference.beam_search import MISSING, brute_force
from reference.ctc import no_synchronization

from crnn_ext.ctc import beam_search

# Enough for all texts of five frames and four classes.
UNPRUNED = 512


@given(batches(max_frames=5, max_classes=4), st.sampled_from(["logits", "log_probs"]))
def test_beam_search_unpruned_equals_brute_force(device, batch, input_type):
    """The result holds every text of any path, with the sum over its paths, best first."""
    logits, lengths, blank = batch
    result = beam_search(
        logits.to(device), lengths, blank=blank, beam_size=UNPRUNED, nbest=UNPRUNED, input_type=input_type
    )
    check_invariants(result, logits.to(device), lengths, blank, UNPRUNED)
    close = tolerances(logits)
    for n, length in enumerate(lengths):
        rows = log_prob_rows(logits, n, length, input_type)
        if any(x != x or x == float("inf") for row in rows for x in row):
            continue
        expected = brute_force(rows, blank=blank)
        exact = {hypothesis.text: hypothesis.log_prob for hypothesis in expected}
        found = hypotheses(result, n)
        assert set(texts(result, n)) == set(exact)
        # Near ties may swap, so the scores are compared by text and by rank.
        for hypothesis, of_rank in zip(found[: len(expected)], expected, strict=True):
            assert hypothesis.score == hypothesis.log_prob == pytest.approx(exact[hypothesis.text], **close)
            assert hypothesis.score == pytest.approx(of_rank.score, **close)
        assert found[len(expected) :] == [MISSING] * (UNPRUNED - len(expected))


@given(
    batches(),
    st.integers(1, 40),
    st.integers(1, 10),
    st.sampled_from(LAYOUTS),
    st.sampled_from(["logits", "log_probs"]),
)
def test_beam_search_equals_reference(device, batch, beam_size, nbest, layout, input_type):
    logits, lengths, blank = batch
    nbest = min(nbest, beam_size)
    options = {"blank": blank, "beam_size": beam_size, "nbest": nbest, "input_type": input_type}
    logits, device_lengths = logits.to(device), lengths.to(device)
    strided = with_layout(logits, layout)
    with no_synchronization(device):
        result = beam_search(strided, device_lengths, **options)
    compared = check_against_reference(result, logits, lengths, **options)
    assume(compared or not len(lengths))


@slow_examples
@given(batches(max_frames=60, max_classes=40, nonfinite=False), st.integers(1, 64))
def test_beam_search_scores_bounded_by_text_probability(device, batch, beam_size):
    """The exact probability is that of torch's loss in float64."""
    logits, lengths, blank = batch
    result = beam_search(logits.to(device), lengths, blank=blank, beam_size=beam_size, nbest=beam_size)
    check_invariants(result, logits.to(device), lengths, blank, beam_size)
    close = tolerances(logits)
    for n, length in enumerate(lengths):
        found = [hypothesis for hypothesis in hypotheses(result, n) if hypothesis.text is not None]
        assert found
        exact = torch_log_probs(
            log_prob_rows(logits, n, length), [hypothesis.text for hypothesis in found], blank
        )
        for hypothesis, log_prob in zip(found, exact, strict=True):
            assert hypothesis.log_prob == hypothesis.score
            assert hypothesis.score <= log_prob + close["abs"] + close["rel"] * abs(log_prob)


@slow_examples
@given(batches(), st.integers(1, 20))
def test_beam_search_batch_equals_single_samples(device, batch, beam_size):
    """Padded samples equal unpadded ones bit by bit."""
    logits, lengths, blank = batch
    logits = logits.to(device)
    options = {"blank": blank, "beam_size": beam_size, "nbest": min(3, beam_size)}
    batched = beam_search(logits, lengths, **options)
    for n, length in enumerate(lengths.tolist()):
        single = beam_search(logits[:length, n], **options)
        for name, field in single._asdict().items():
            expected = getattr(batched, name)[n]
            if field.dim() == 2:
                expected = expected[:, :length]
            torch.testing.assert_close(field, expected, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("beam_size", [1, 2, 31, 32, 33, 64, 127, 128, 129, 256, 511, 512])
@pytest.mark.parametrize("classes", [2, 5, 40])
def test_beam_search_beam_sizes(device, classes, beam_size):
    logits = random_logits(7, 1, classes, seed=classes, scale=1.0).double().to(device)
    options = {"beam_size": beam_size, "nbest": beam_size, "blank": classes - 1}
    assert check_against_reference(beam_search(logits, **options), logits, [7], **options) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 8, 9, 64, 65, 257, 1024, 1025, 5001])
def test_beam_search_many_classes(device, classes, dtype):
    logits = random_logits(3, 2, classes, seed=classes, scale=3.0).to(device, dtype)
    result = beam_search(logits, beam_size=6, nbest=2, blank=classes // 2)
    # Among thousands of classes in 16 bits, many are equal, and sums differ in their last bits only.
    compared = check_against_reference(result, logits, [3, 3], beam_size=6, nbest=2, blank=classes // 2)
    assert compared == 2 or dtype in (torch.float16, torch.bfloat16)


def test_beam_search_many_frames(device):
    logits = random_logits(400, 3, 6, scale=1.5).double().to(device)
    lengths = [400, 399, 257]
    result = beam_search(logits, lengths, beam_size=5, nbest=2)
    assert check_against_reference(result, logits, lengths, beam_size=5, nbest=2) == 3


@pytest.mark.parametrize("blank", [0, 2, 4])
def test_beam_search_ties_in_token_order(device, blank):
    """All tokens have equal logits: texts of the same pattern tie exactly."""
    logits = torch.zeros(4, 1, 5, device=device)
    logits[:, 0, blank] = torch.tensor([0.3, -0.8, 1.1, 0.1])
    for beam_size in (1, 2, 3, 5, 8, 13, 21, 60):
        options = {"beam_size": beam_size, "nbest": beam_size, "blank": blank}
        assert check_against_reference(beam_search(logits, **options), logits, [4], **options) == 1


@pytest.mark.parametrize(
    ("frames", "beam_size", "expected"),
    [
        (1, 5, [(), (0,), (1,), (3,)]),
        (1, 2, [(), (0,)]),
        # (0,), (1,) and (3,) have three alignments, the rest one each: stay before extend.
        (2, 9, [(0,), (1,), (3,), (), (0, 1), (0, 3), (1, 0), (1, 3), (3, 0)]),
        (2, 5, [(0,), (1,), (3,), (), (0, 1)]),
        (2, 4, [(0,), (1,), (3,), ()]),
        # (1,) and (3,) are pruned in the first frame, and tie with the empty text when they begin again.
        (2, 2, [(0,), ()]),
        (2, 1, [()]),
    ],
)
def test_beam_search_ties_of_uniform_frames(device, frames, beam_size, expected):
    """The order is: score, stay before extend, rank in the previous beam, token."""
    for value in (0.0, -7.0, 2.0**20):
        logits = torch.full((frames, 1, 4), value, device=device)
        result = beam_search(logits, blank=2, beam_size=beam_size, nbest=beam_size)
        assert texts(result) == expected


def test_beam_search_unbatched(device):
    logits = random_logits(7, 1, 5, scale=3.0, device=device)
    batched = beam_search(logits, [6], nbest=4)
    for length in (6, [6], torch.tensor(6), torch.tensor([6], dtype=torch.uint8)):
        result = beam_search(logits[:, 0], length, nbest=4)
        for name, field in batched._asdict().items():
            assert torch.equal(getattr(result, name), field[0]), name


def test_beam_search_defaults(device):
    logits = random_logits(20, 2, 30, scale=1.0, device=device)
    explicit = beam_search(logits, [20, 20], blank=0, beam_size=16, nbest=1)
    assert_bitwise_equal(beam_search(logits), explicit)


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("classes", [30, 1000])
def test_beam_search_gpu_equals_cpu(device, classes):
    logits = random_logits(150, 6, classes, seed=classes, scale=2.0).double()
    lengths = [150, 149, 100, 31, 1, 0]
    for options in ({}, {"beam_size": 100, "nbest": 50}, {"token_top_k": 5}, {"beam_threshold": 12.0}):
        on_gpu = beam_search(logits.to(device), lengths, **options)
        on_cpu = beam_search(logits, lengths, **options)
        assert torch.equal(on_gpu.tokens.cpu(), on_cpu.tokens)
        torch.testing.assert_close(on_gpu.scores.cpu(), on_cpu.scores, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(on_gpu.token_logp.cpu(), on_cpu.token_logp, rtol=1e-9, atol=1e-9)
