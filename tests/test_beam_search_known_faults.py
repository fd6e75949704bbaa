"""Faults that other decoders have had, one test each."""

import math

import pytest
import torch
from beam_search_checks import check, check_form, hypotheses, judged, rows_of, texts
from reference.beam_search import Hypothesis

from crnn_ext.ctc import beam_search

INF = math.inf


def random_logits(*shape, seed=0, scale=3.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("beam_size", [1, 2, 16])
def test_doubled_letters_are_kept(device, beam_size):
    """TensorFlow #6034, EasyOCR #305."""
    path = [1, 0, 1, 2, 2, 0, 2, 0, 0, 2, 1]
    logits = (9.0 * torch.nn.functional.one_hot(torch.tensor(path), 4)).unsqueeze(1).to(device)
    result = beam_search(logits, beam_size=beam_size)
    assert texts(result) == [(1, 1, 2, 2, 2, 1)]
    (exact,) = judged(rows_of(logits, 0, len(path)), texts(result), 0)
    assert hypotheses(result)[0].score <= exact + 1e-5
    if beam_size == 16:
        assert hypotheses(result)[0].score == pytest.approx(exact, abs=1e-2)


def test_letters_are_doubled_by_a_blank_alone(device):
    logits = torch.zeros(6, 1, 3, device=device)
    logits[..., 1] = 9.0
    assert texts(beam_search(logits)) == [(1,)]


def test_alignments_are_added_up(device):
    """Most decoders take the best path of each text for its probability: here the empty text's."""
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]], dtype=torch.float64, device=device).log()
    result = beam_search(log_probs.unsqueeze(1), nbest=2)
    assert texts(result) == [(1,), ()]
    assert result.scores.exp().tolist() == [pytest.approx([0.64, 0.36])]


def test_no_text_comes_twice(device):
    """NeMo's batched beam returns texts once for each of their alignments."""
    logits = random_logits(12, 4, 3, scale=0.5).to(device)
    for beam_size in (2, 5, 60):
        result = beam_search(logits, beam_size=beam_size, nbest=beam_size)
        check_form(result, logits, [12] * 4, 0, beam_size)


@pytest.mark.parametrize("beam_size", [2, 3, 4])
def test_a_prefix_that_left_the_beam_and_came_back_is_still_the_same(device, beam_size):
    """What it spells goes on with the prefixes that stayed, in narrow beams and uncertain frames."""
    logits = random_logits(16, 60, 3, scale=1.5).double().to(device)
    options = {"beam_size": beam_size, "nbest": beam_size}
    assert check(beam_search(logits, **options), logits, [16] * 60, **options) == 60


def test_padding_is_not_decoded(device):
    """parlance/ctcdecode #54."""
    logits = random_logits(9, 2, 4).to(device)
    logits[4:, 0] = 50.0 * torch.nn.functional.one_hot(torch.tensor([1, 2, 3, 1, 2]), 4)
    result = beam_search(logits, [4, 9], beam_size=50, nbest=10)
    alone = beam_search(logits[:4, :1], beam_size=50, nbest=10)
    assert hypotheses(result, 0) == hypotheses(alone)


def test_scores_are_sorted_whatever_is_added(device):
    """parlance/ctcdecode #195: with a weight on top, the beam's order is no longer that of the scores."""
    logits = random_logits(10, 3, 6, scale=1.0).double().to(device)
    for token_score in (-4.0, 0.0, 2.5):
        result = beam_search(logits, token_score=token_score, nbest=16)
        for n in range(3):
            found = hypotheses(result, n)
            assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
            for text, score, log_prob in found:
                assert score == pytest.approx(log_prob + token_score * len(text))


def test_each_pruning_option_has_its_effect(device):
    """parlance/ctcdecode #70 and #104: options without effect, logarithms compared with probabilities."""
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64, device=device).log()
    for options, expected in [
        ({}, [(), (1,), (2,), (3,)]),
        ({"token_top_k": 2}, [(), (1,), (2,)]),
        ({"token_min_logp": math.log(0.2)}, [(), (1,)]),
        ({"token_min_logp": -math.exp(-1)}, [()]),
        ({"beam_threshold": math.log(4)}, [(), (1,), (2,)]),
        ({"beam_threshold": math.log(2)}, [(), (1,)]),
        ({"beam_size": 3, "nbest": 3}, [(), (1,), (2,)]),
    ]:
        for input_type in ("logits", "log_probs"):
            result = beam_search(log_probs.unsqueeze(1), input_type=input_type, **{"nbest": 5, **options})
            assert texts(result) == expected[: options.get("nbest", 5)]


@pytest.mark.parametrize("blank", [0, 3])
def test_nothing_but_blanks_has_the_score_of_the_blanks(device, blank):
    """torchaudio's cuctc leaves the score of such input unset."""
    logits = random_logits(20, 3, 4).to(device)
    logits[..., blank] = 60.0
    lengths = [20, 7, 0]
    result = beam_search(logits, lengths, blank=blank)
    for n, length in enumerate(lengths):
        total = float(logits[:length, n].double().log_softmax(-1)[:, blank].sum())
        assert texts(result, n) == [()]
        assert result.scores[n, 0].item() == result.log_probs[n, 0].item() == pytest.approx(total, abs=1e-6)
    log_probs = torch.full_like(logits, -INF)
    log_probs[..., blank] = -0.25
    result = beam_search(log_probs, lengths, blank=blank, input_type="log_probs")
    assert [hypotheses(result, n) for n in range(3)] == [
        [Hypothesis((), -0.25 * length, -0.25 * length)] for length in lengths
    ]


def test_frames_that_are_surely_blank_count_too(device):
    """Decoders that skip them leave out their log-probability."""
    logits = random_logits(12, 1, 5).double().to(device)
    logits[::2, :, 0] += 12.0
    options = {"beam_size": 8, "nbest": 8}
    assert check(beam_search(logits, **options), logits, [12], **options) == 1


def test_more_numbers_than_an_int32_counts(device):
    """N * beam * T * C beyond 2^31: torchaudio's cuctc returns what its memory held before."""
    frames, samples, classes, beam_size = 3, 2, 1 << 20, 512
    generator = torch.Generator().manual_seed(2)
    used = torch.cat(
        [torch.randperm(classes - 2, generator=generator)[:24] + 1, torch.tensor([0, classes - 1])]
    )
    used = used.sort().values
    few = random_logits(frames, samples, len(used), seed=3, scale=1.0)
    logits = torch.full((frames, samples, classes), -INF)
    logits[..., used] = few
    assert logits.numel() * beam_size > 2**31
    options = {"beam_size": beam_size, "nbest": 100}
    result = beam_search(logits.to(device), **options)
    tokens = torch.where(
        result.tokens < 0, -1, torch.searchsorted(used.to(device), result.tokens.clamp(min=0))
    )
    assert torch.equal(torch.where(tokens < 0, -1, used.to(device)[tokens]), result.tokens)
    assert check(result._replace(tokens=tokens), few.to(device), [frames] * samples, **options) == samples


@pytest.mark.parametrize("beam_size", [129, 300])
def test_a_beam_above_128_keeps_as_many(device, beam_size):
    """torchaudio's cuctc aborts the process."""
    logits = random_logits(8, 2, 5, scale=0.5).double().to(device)
    options = {"beam_size": beam_size, "nbest": beam_size}
    result = beam_search(logits, **options)
    assert len(texts(result)) == beam_size
    assert check(result, logits, [8, 8], **options) == 2


def test_more_than_800_samples(device):
    """torchaudio's cuctc launches an empty grid."""
    logits = random_logits(3, 1000, 3).double().to(device)
    assert check(beam_search(logits, beam_size=3), logits, [3] * 1000, beam_size=3) > 990


def test_results_are_on_the_device_of_the_logits(device):
    """torchaudio #3910, where that is not the current one."""
    if device.type == "cuda":
        if torch.cuda.device_count() < 2:
            pytest.skip("needs two GPUs")
        device = torch.device("cuda:1")
    logits = random_logits(6, 2, 5).to(device)
    options = {"beam_size": 4, "nbest": 2}
    assert check(beam_search(logits, [6, 5], **options), logits, [6, 5], **options) == 2
