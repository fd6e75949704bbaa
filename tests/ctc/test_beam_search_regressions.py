"""Regression tests for faults of other decoders, one test each."""

import math

import pytest
import torch
from helpers.beam_search_checks import (
    check_against_reference,
    check_invariants,
    hypotheses,
    log_prob_rows,
    texts,
    to_ngram_model,
    torch_log_probs,
)
from helpers.logits import random_logits
from reference.ngram import BackoffModel

from crnn_ext.ctc import beam_search
from crnn_ext.text import Charset, HotWords, Lexicon

INF = math.inf


@pytest.mark.parametrize("beam_size", [1, 2, 16])
def test_beam_search_keeps_doubled_labels(device, beam_size):
    """TensorFlow #6034, EasyOCR #305."""
    path = [1, 0, 1, 2, 2, 0, 2, 0, 0, 2, 1]
    logits = (9.0 * torch.nn.functional.one_hot(torch.tensor(path), 4)).unsqueeze(1).to(device)
    result = beam_search(logits, beam_size=beam_size)
    assert texts(result) == [(1, 1, 2, 2, 2, 1)]
    (exact,) = torch_log_probs(log_prob_rows(logits, 0, len(path)), texts(result), 0)
    assert hypotheses(result)[0].score <= exact + 1e-5
    if beam_size == 16:
        assert hypotheses(result)[0].score == pytest.approx(exact, abs=1e-2)


def test_beam_search_merges_repeats_without_blank(device):
    logits = torch.zeros(6, 1, 3, device=device)
    logits[..., 1] = 9.0
    assert texts(beam_search(logits)) == [(1,)]


def test_beam_search_sums_over_alignments(device):
    """Decoders that score a text by its best path prefer the empty text here."""
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]], dtype=torch.float64, device=device).log()
    result = beam_search(log_probs.unsqueeze(1), nbest=2)
    assert texts(result) == [(1,), ()]
    assert result.scores.exp().tolist() == [pytest.approx([0.64, 0.36])]


def test_beam_search_texts_are_distinct(device):
    """NeMo's batched beam returns a text once for each alignment."""
    logits = random_logits(12, 4, 3, scale=0.5, device=device)
    for beam_size in (2, 5, 60):
        result = beam_search(logits, beam_size=beam_size, nbest=beam_size)
        check_invariants(result, logits, [12] * 4, 0, beam_size)


@pytest.mark.parametrize("beam_size", [2, 3, 4])
def test_beam_search_prefix_reenters_beam(device, beam_size):
    """A prefix that is pruned and found again merges with its extensions in the beam."""
    logits = random_logits(16, 60, 3, scale=1.5).double().to(device)
    options = {"beam_size": beam_size, "nbest": beam_size}
    assert check_against_reference(beam_search(logits, **options), logits, [16] * 60, **options) == 60


def test_beam_search_padding_is_not_decoded(device):
    """parlance/ctcdecode #54."""
    logits = random_logits(9, 2, 4, scale=3.0, device=device)
    logits[4:, 0] = 50.0 * torch.nn.functional.one_hot(torch.tensor([1, 2, 3, 1, 2]), 4)
    result = beam_search(logits, [4, 9], beam_size=50, nbest=10)
    single = beam_search(logits[:4, :1], beam_size=50, nbest=10)
    assert hypotheses(result, 0) == hypotheses(single)


def test_beam_search_sorted_by_fused_score(device):
    """parlance/ctcdecode #195: with added weights, the order of the beam is not that of the scores."""
    logits = random_logits(10, 3, 6, scale=1.0).double().to(device)
    for token_score in (-4.0, 0.0, 2.5):
        result = beam_search(logits, token_score=token_score, nbest=16)
        for n in range(3):
            found = hypotheses(result, n)
            assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
            for text, score, log_prob in found:
                assert score == pytest.approx(log_prob + token_score * len(text))


def test_beam_search_pruning_options_take_effect(device):
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
def test_beam_search_all_blank_score(device, blank):
    """torchaudio's cuctc leaves the score of such input unset."""
    logits = random_logits(20, 3, 4, scale=3.0, device=device)
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
    assert [texts(result, n) for n in range(3)] == [[()]] * 3
    assert result.scores[:, 0].tolist() == pytest.approx([-0.25 * length for length in lengths])


def test_beam_search_counts_confident_blank_frames(device):
    """Decoders that skip such frames omit their log-probability."""
    logits = random_logits(12, 1, 5, scale=3.0).double().to(device)
    logits[::2, :, 0] += 12.0
    options = {"beam_size": 8, "nbest": 8}
    assert check_against_reference(beam_search(logits, **options), logits, [12], **options) == 1


def test_beam_search_sizes_beyond_int32(device):
    """N * beam * T * C beyond 2^31: torchaudio's cuctc returns uninitialized memory."""
    frames, samples, classes, beam_size = 3, 2, 1 << 20, 512
    generator = torch.Generator().manual_seed(2)
    used = torch.cat(
        [torch.randperm(classes - 2, generator=generator)[:24] + 1, torch.tensor([0, classes - 1])]
    )
    used = used.sort().values
    few = random_logits(frames, samples, len(used), seed=3, scale=1.0).double()
    logits = torch.full((frames, samples, classes), -INF, dtype=torch.float64)
    logits[..., used] = few
    assert logits.numel() * beam_size > 2**31
    options = {"beam_size": beam_size, "nbest": 100}
    result = beam_search(logits.to(device), **options)
    tokens = torch.where(
        result.tokens < 0, -1, torch.searchsorted(used.to(device), result.tokens.clamp(min=0))
    )
    assert torch.equal(torch.where(tokens < 0, -1, used.to(device)[tokens]), result.tokens)
    assert (
        check_against_reference(result._replace(tokens=tokens), few.to(device), [frames] * samples, **options)
        == samples
    )


@pytest.mark.parametrize("beam_size", [129, 300])
def test_beam_search_beam_above_128(device, beam_size):
    """torchaudio's cuctc aborts the process."""
    logits = random_logits(8, 2, 5, scale=0.5).double().to(device)
    options = {"beam_size": beam_size, "nbest": beam_size}
    result = beam_search(logits, **options)
    assert len(texts(result)) == beam_size
    assert check_against_reference(result, logits, [8, 8], **options) == 2


def test_beam_search_more_than_800_samples(device):
    """torchaudio's cuctc launches an empty grid."""
    logits = random_logits(3, 1000, 3, scale=3.0).double().to(device)
    assert check_against_reference(beam_search(logits, beam_size=3), logits, [3] * 1000, beam_size=3) > 990


def test_beam_search_result_device(device):
    """torchaudio #3910: the device of the logits may not be the current one."""
    if device.type == "cuda":
        if torch.cuda.device_count() < 2:
            pytest.skip("needs two GPUs")
        device = torch.device("cuda:1")
    logits = random_logits(6, 2, 5, scale=3.0, device=device)
    options = {"beam_size": 4, "nbest": 2}
    assert check_against_reference(beam_search(logits, [6, 5], **options), logits, [6, 5], **options) == 2


CHARSET = Charset(" ab")
SPACE, A, B = 1, 2, 3


def test_beam_search_lm_scores_end_of_text_once(device):
    """pyctcdecode #94: the score of a prefix was used for the complete text, and vice versa."""
    ngrams = {("<s>",): (-99.0, 0.0), ("</s>",): (-2.0, 0.0), ("<unk>",): (-3.0, 0.0)}
    ngrams |= {("a",): (-0.5, 0.0), ("b",): (-0.7, 0.0), ("a", "</s>"): (-0.1, 0.0)}
    lm = to_ngram_model(BackoffModel(2, ngrams), CHARSET, space="<unk>")
    # The same text ends after one frame, ends after three, and continues.
    logits = torch.zeros(4, 3, 4, dtype=torch.float64, device=device)
    logits[:, :, 0] = 4.0
    logits[0, :, A] = 9.0
    logits[3, 2, B] = 15.0
    for _ in range(2):
        result = beam_search(logits, [1, 3, 4], lm=lm, lm_weight=1.0)
        for n, (text, log10) in enumerate(
            [((A,), -0.5 - 0.1), ((A,), -0.5 - 0.1), ((A, B), -0.5 - 0.7 - 2.0)]
        ):
            (found,) = hypotheses(result, n)
            assert found.text == text
            assert found.score - found.log_prob == pytest.approx(math.log(10) * log10, abs=1e-5)


@pytest.mark.parametrize("separators", [" ", ""])
def test_beam_search_removes_bonus_of_unfinished_hotword(device, separators):
    """WeNet #864."""
    hotwords = HotWords.from_words(["abab"], CHARSET, separators=separators)
    path = [A, 0, B, 0, A]
    logits = (9.0 * torch.nn.functional.one_hot(torch.tensor([*path, 0, B, 0, 0]), 4)).double().unsqueeze(1)
    logits = logits.to(device)
    unfinished = beam_search(logits[:5], hotwords=hotwords, hotword_weight=2.0)
    finished = beam_search(logits, hotwords=hotwords, hotword_weight=2.0)
    assert texts(unfinished) == [(A, B, A)]
    assert texts(finished) == [(A, B, A, B)]
    assert unfinished.scores.item() == pytest.approx(unfinished.log_probs.item())
    assert finished.scores.item() == pytest.approx(finished.log_probs.item() + 2.0 * 4)
    # Another letter ends the partial match.
    logits[6, 0] = logits[0, 0]
    logits[5, 0, B] = 1.0
    mismatch = beam_search(logits, hotwords=hotwords, hotword_weight=0.01)
    assert texts(mismatch) == [(A, B, A, A)]
    assert mismatch.scores.item() == pytest.approx(mismatch.log_probs.item())


def test_beam_search_repeated_separators_are_distinct_texts(device):
    """pyctcdecode sums texts that differ in white space only, and so exceeds the probability of each."""
    logits = random_logits(8, 3, 4, scale=1.0).double().to(device)
    logits[..., SPACE] += 1.5
    lexicon = Lexicon.from_words(["a", "b", "ab"], CHARSET, unknown_score=-0.5)
    result = beam_search(logits, lexicon=lexicon, beam_size=300, nbest=60)
    for n in range(3):
        found = texts(result, n)
        assert any(text[i : i + 2] == (SPACE, SPACE) for text in found for i in range(len(text)))
        exact = torch_log_probs(log_prob_rows(logits, n, 8), found, 0)
        for hypothesis, log_prob in zip(hypotheses(result, n), exact, strict=True):
            assert hypothesis.log_prob <= log_prob + 1e-9


def thue_morse(length):
    """The first `length` letters of the Thue-Morse sequence."""
    return [A if i.bit_count() % 2 else B for i in range(length)]


def test_beam_search_polynomial_hash_collisions(device):
    """The Thue-Morse sequence and its complement have equal hashes modulo 2^64 for every base."""
    first = thue_morse(1024)
    second = [A + B - token for token in first]
    tail = [4, A, B, B] * 6
    charset = Charset(" abc")
    words = charset.decode(torch.tensor([first + tail, second + tail]), [len(first + tail)] * 2)
    lexicon = Lexicon.from_words(words, charset)
    # After frame 0, in which both words start, all letters are equally probable. Where the words differ, the
    # frames are peaked; after that they are flat, so that prefixes share alignments.
    peaked, between, flat = ([0.0, -INF, *[letter] * 3] for letter in (12.0, -12.0, 0.5))
    logits = torch.tensor([peaked, between] * len(first) + [flat] * 3 * len(tail), dtype=torch.float64)
    logits[0, [0, 4]] = -INF
    logits[0, first[0]] = 14.0
    result = beam_search(logits.unsqueeze(1).to(device), lexicon=lexicon, beam_size=64, nbest=2)
    assert texts(result) == [(*first, *tail), (*second, *tail)]
    assert float(result.scores[0, 0] - result.scores[0, 1]) == pytest.approx(2.0, abs=1e-6)
