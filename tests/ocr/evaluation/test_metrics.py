"""Error rates, their intervals and calibration, compared with slow references and hand computations."""

import functools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn_ext.ocr import ErrorCounts
from crnn_ext.ocr.evaluation.calibration import calibration
from crnn_ext.ocr.evaluation.intervals import BOOTSTRAP_RESAMPLES, Rate, bootstrap_error_rate, wilson_rate
from crnn_ext.ocr.evaluation.metrics import Confusion

# Includes two combining marks that NFC composes with no letter.
TEXTS = st.text("ab \u0364\u0368", max_size=7)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=12)


def distance(truth, read):
    """The edit distance by its recursive definition."""

    @functools.cache
    def of(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (truth[i - 1] != read[j - 1]))

    return of(len(truth), len(read))


def graphemes(text):
    """Split a text of the characters in TEXTS into graphemes: a mark joins the preceding character."""
    clusters = []
    for character in text:
        if character in "\u0364\u0368" and clusters:
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def counts(truth, read, unit="graphemes"):
    return ErrorCounts.from_pairs([(truth, read)], unit).characters[0].tolist()


@given(TEXTS, TEXTS)
def test_character_errors_equal_edit_distance(truth, read):
    for unit, split in [("graphemes", graphemes), ("code points", list)]:
        units, substitutions, insertions, deletions = counts(truth, read, unit)
        assert units == len(split(truth))
        assert substitutions + insertions + deletions == distance(split(truth), split(read))
        assert len(split(truth)) + insertions - deletions == len(split(read))


@given(
    *[st.lists(st.sampled_from(["a", "ab", "abc"]), max_size=5)] * 2, st.sampled_from([" ", "\t", " \u2003"])
)
def test_word_errors_equal_edit_distance(truth, read, space):
    [[units, *errors]] = ErrorCounts.from_pairs([(" ".join(truth) + space, space.join(read))]).words.tolist()
    assert units == len(truth)
    assert sum(errors) == distance(truth, read)


@pytest.mark.parametrize(
    ("truth", "read", "of_graphemes", "of_code_points"),
    [
        ("caf\u00e9", "cafe\u0301", [4, 0, 0, 0], [4, 0, 0, 0]),  # equal in NFC
        ("u\u0364ber", "uber", [4, 1, 0, 0], [5, 0, 0, 1]),  # a small e above
        ("\u0928\u093f", "\u0928", [1, 1, 0, 0], [2, 0, 0, 1]),  # a Devanagari letter and its vowel sign
        ("\u0915\u094d\u0937", "", [1, 0, 0, 1], [3, 0, 0, 3]),  # a Devanagari conjunct
        ("\u1100\u1161\u11a8", "\uac01", [1, 0, 0, 0], [1, 0, 0, 0]),  # Hangul, which NFC composes
        ("\U0001f469\u200d\U0001f9b0", "x", [1, 1, 0, 0], [3, 1, 0, 2]),  # two emoji joined
        ("ab", "ab ", [2, 0, 1, 0], [2, 0, 1, 0]),  # white space counts
        ("", "ab", [0, 0, 2, 0], [0, 0, 2, 0]),
    ],
)
def test_character_units(truth, read, of_graphemes, of_code_points):
    assert counts(truth, read) == of_graphemes
    assert counts(truth, read, "code points") == of_code_points


def test_error_counts_rejects_unit():
    with pytest.raises(ValueError, match="unit must be 'graphemes' or 'code points', got 'words'"):
        ErrorCounts.from_pairs([], "words")


@pytest.mark.parametrize(
    ("truth", "doubled"),
    [("", False), ("a", False), ("aba", False), ("abba", True), ("1..2", True), ("a\u0364a\u0364", False)],
)
def test_doubled_characters(truth, doubled):
    assert ErrorCounts.from_pairs([(truth, "")]).doubled.tolist() == [doubled]


def test_metrics_by_hand():
    metrics = ErrorCounts.from_pairs(
        [("ab cd", "ab cd"), ("ab", "axbyy"), ("", "x"), ("efff g", "fff g")]
    ).metrics()
    cer, wer = metrics.overall.cer, metrics.overall.wer
    assert (cer.units, cer.substitutions, cer.insertions, cer.deletions) == (13, 0, 4, 1)
    assert cer.rate.value == 5 / 13
    assert (wer.units, wer.substitutions, wer.insertions, wer.deletions) == (5, 2, 1, 0)
    assert wer.rate.value == 3 / 5
    assert metrics.overall.lines == 4
    assert metrics.overall.accuracy.value == 1 / 4
    assert {name: scores.lines for name, scores in metrics.by_length.items()} == {"0": 1, "1-4": 1, "5-9": 2}
    assert metrics.by_length["0"].cer.rate is None
    assert metrics.by_length["1-4"].cer.rate.value == 3 / 2
    assert {name: scores.cer.units for name, scores in metrics.by_doubled.items()} == {
        "doubled": 6,
        "not doubled": 7,
    }
    assert metrics.confusions == [Confusion("", "x", 2), Confusion("", "y", 2), Confusion("e", "", 1)]


def test_metrics_by_length():
    pairs = [("a" * length, "") for length in (0, 1, 4, 5, 9, 10, 19, 20, 39, 40, 59, 60, 79, 80, 500)]
    by_length = ErrorCounts.from_pairs(pairs).metrics().by_length
    assert {name: scores.cer.units for name, scores in by_length.items()} == {
        "0": 0,
        "1-4": 5,
        "5-9": 14,
        "10-19": 29,
        "20-39": 59,
        "40-59": 99,
        "60-79": 139,
        "80-": 580,
    }


def test_confusions_sorted_by_frequency():
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(letter, "X") for letter in letters] + [("z", "Y")] * 3 + [("ab", "b")] * 2
    confusions = ErrorCounts.from_pairs(pairs).metrics().confusions
    assert confusions[:3] == [Confusion("z", "Y", 3), Confusion("a", "", 2), Confusion("a", "X", 1)]
    assert len(confusions) == 20


def test_metrics_no_lines():
    metrics = ErrorCounts.from_pairs([]).metrics()
    assert metrics.overall.lines == 0
    assert metrics.overall.accuracy is None
    assert (metrics.overall.cer.rate, metrics.overall.wer.rate) == (None, None)
    assert (metrics.by_length, metrics.by_doubled, metrics.confusions) == ({}, {}, [])


@given(PAIRS, st.randoms(), st.integers(1, 4))
def test_merge_equals_whole(pairs, random, parts):
    whole = ErrorCounts.from_pairs(pairs)
    shuffled = random.sample(pairs, len(pairs))
    counts = [
        pickle.loads(pickle.dumps(ErrorCounts.from_pairs(shuffled[part::parts]))) for part in range(parts)
    ]
    merged = ErrorCounts.merge(counts)
    assert merged.metrics() == whole.metrics()
    assert sorted(merged.errors.tolist()) == sorted(whole.errors.tolist())


@pytest.mark.parametrize(
    ("count", "lines", "low", "high"),
    # E. B. Wilson's interval, from R: prop.test(count, lines, correct = FALSE)
    [
        (0, 10, 0.0, 0.277533),
        (5, 10, 0.236593, 0.763407),
        (10, 10, 0.722467, 1.0),
        (81, 263, 0.255289, 0.366210),
    ],
)
def test_share_of_lines_wilson_interval(count, lines, low, high):
    rate = wilson_rate(count, lines)
    assert rate.value == count / lines
    assert (rate.low, rate.high) == (pytest.approx(low, abs=5e-6), pytest.approx(high, abs=5e-6))


@given(st.integers(1, 10**6).flatmap(lambda lines: st.tuples(st.integers(0, lines), st.just(lines))))
def test_share_of_lines_inside_interval(numbers):
    rate = wilson_rate(*numbers)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


def random_lines(random, lines):
    """Draw errors and units of lines: a tenth hard, the rest easy."""
    units = random.integers(1, 80, lines)
    return random.binomial(units, random.choice([0.01, 0.3], lines, p=[0.9, 0.1])), units


def test_error_rate_bootstrap_quantiles():
    errors, units = random_lines(np.random.default_rng(0), 300)
    chosen = np.random.default_rng(1).integers(300, size=(20_000, 300))
    rates = errors[chosen].sum(1) / units[chosen].sum(1)
    interval = bootstrap_error_rate(errors, units)
    # The rank of the 2.5% quantile among BOOTSTRAP_RESAMPLES sorted rates has a standard deviation of 5.
    for bound, quantile in [(interval.low, 0.025), (interval.high, 0.975)]:
        rank = (rates < bound).mean() * BOOTSTRAP_RESAMPLES
        assert abs(rank - quantile * BOOTSTRAP_RESAMPLES) < 15


def test_interval_coverage():
    """About 95 % of intervals contain the rate of the population."""
    random = np.random.default_rng(0)
    truth = 0.9 * 0.01 + 0.1 * 0.3
    right_truth = np.mean([0.9 * 0.99**units + 0.1 * 0.7**units for units in range(1, 80)])
    trials = 500
    below, above, right_covered = 0, 0, 0
    for _ in range(trials):
        errors, units = random_lines(random, 260)
        rate = bootstrap_error_rate(errors, units)
        below += rate.high < truth
        above += rate.low > truth
        accuracy = wilson_rate(int((errors == 0).sum()), 260)
        right_covered += accuracy.low <= right_truth <= accuracy.high
    # A share of 95 % in 500 trials has a standard deviation of 1 %.
    assert 0.93 <= 1 - (below + above) / trials <= 0.97
    assert 0.93 <= right_covered / trials <= 0.97
    assert min(below, above) >= 5


def test_error_rate_identical_lines():
    assert bootstrap_error_rate(np.full(9, 2), np.full(9, 8)) == Rate(0.25, 0.25, 0.25)
    assert bootstrap_error_rate(np.array([3]), np.array([2])) == Rate(1.5, 1.5, 1.5)


def test_error_rate_lines_without_units():
    """Some resamples then have no units, so no rate."""
    errors, units = np.array([1, 0, 0]), np.array([0, 0, 4])
    rate = bootstrap_error_rate(errors, units)
    assert rate.value == 1 / 4
    assert rate.low == 0
    assert rate.high == 2 / 4


def test_calibration_by_hand():
    confidences = [0.0, 0.05, 0.1, 0.55, 0.95, 0.99, 1.0]
    right = np.array([False, True, False, True, True, False, True])
    result = calibration(confidences, right)
    assert [bin_.lines for bin_ in result.bins] == [2, 1, 0, 0, 0, 1, 0, 0, 0, 3]
    assert [(bin_.low, bin_.high) for bin_ in result.bins] == [(i / 10, (i + 1) / 10) for i in range(10)]
    first, second, third, *_, last = result.bins
    assert (first.confidence, first.accuracy) == (0.025, 0.5)
    assert (second.confidence, second.accuracy) == (0.1, 0.0)
    assert (third.confidence, third.accuracy) == (None, None)
    assert (last.confidence, last.accuracy) == (pytest.approx(0.98), pytest.approx(2 / 3))
    assert result.mean_confidence == pytest.approx(sum(confidences) / 7)
    assert result.expected_error == pytest.approx((2 * 0.475 + 0.1 + 0.45 + 3 * (0.98 - 2 / 3)) / 7)


def test_calibration_no_lines():
    result = calibration([], np.array([], np.bool_))
    assert (result.mean_confidence, result.expected_error) == (None, None)
    assert [bin_.lines for bin_ in result.bins] == [0] * 10
