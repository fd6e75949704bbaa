"""The references of beam search against each other, against torch, and against values computed by hand."""

import math

import pytest
import torch
from helpers.fuzz import slow_examples
from helpers.pruning_cases import CASES, ROWS
from hypothesis import given
from hypothesis import strategies as st

from reference.beam_search import (
    INVALID,
    MISSING,
    ZERO_SCORER,
    Hypothesis,
    beam_search,
    best_first,
    brute_force,
    collapse,
    log_softmax,
)
from reference.ngram import BackoffModel
from reference.scorers import (
    HotwordScorer,
    LexiconScorer,
    TokenCountScorer,
    TokenLMScorer,
    WeightedSum,
    WordLMScorer,
)

INF, NAN = math.inf, math.nan
UNPRUNED = 2000

# Class 0 is the blank, 3 the separator. Some n-grams have no backoff weight; <unk> has one in the word model.
NAMES = ["<blank>", "a", "b", "_"]
TOKEN_MODEL = BackoffModel(
    3,
    {
        ("<unk>",): (-1.5, 0.0),
        ("<s>",): (-99.0, -0.3),
        ("</s>",): (-1.0, 0.0),
        ("a",): (-0.4, -0.2),
        ("b",): (-0.7, -0.1),
        ("<s>", "a"): (-0.9, -0.4),
        ("a", "b"): (-0.2, 0.3),
        ("b", "</s>"): (-0.1, 0.0),
        ("<s>", "a", "b"): (-0.6, 0.0),
    },
)
WORD_MODEL = BackoffModel(
    2,
    {
        ("<unk>",): (-2.0, 0.1),
        ("<s>",): (-99.0, -0.5),
        ("</s>",): (-0.8, 0.0),
        ("AB",): (-0.3, -0.2),
        ("B",): (-1.1, -0.4),
        ("<s>", "B"): (-0.2, -0.1),
        ("B", "</s>"): (-0.3, 0.0),
    },
)
LEXICON = {(1, 2): "AB", (2,): "B", (2, 2, 1): "BBA"}
SCORERS = {
    "nothing": ZERO_SCORER,
    "a token model": WeightedSum((0.7, TokenLMScorer(TOKEN_MODEL, NAMES)), (-0.3, TokenCountScorer())),
    "a lexicon": LexiconScorer(LEXICON, {3}, word_score=0.6),
    "a lexicon and free text": LexiconScorer(LEXICON, {3}, word_score=0.6, unknown_score=-1.2),
    "a lexicon without separators": LexiconScorer(LEXICON, ()),
    "a word model": WeightedSum(
        (1, LexiconScorer(LEXICON, {3}, 0.2, -0.7)), (0.4, WordLMScorer(WORD_MODEL, LEXICON, {3}))
    ),
    "hot words": WeightedSum((1.5, HotwordScorer([(1, 2), (2,), (2, 1, 2)], {3}))),
    "a hot phrase": WeightedSum((1.1, HotwordScorer([(1, 3, 2), (2,), (1, 3, 1)], {3}))),
    "hot words anywhere": WeightedSum((0.8, HotwordScorer([(1, 2), (2, 1), (1, 2, 2, 1)]))),
    "a hot word as a malus": WeightedSum((-2.0, HotwordScorer([(1,)]))),
}


def matrices(max_frames=5, classes=4):
    @st.composite
    def draw_matrix(draw):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        frames = draw(st.integers(0, max_frames))
        logits = torch.randn(frames, classes, generator=generator, dtype=torch.float64)
        logits = logits * draw(st.sampled_from([0.3, 2.0, 8.0]))
        masked = torch.rand(frames, classes, generator=generator) < draw(st.sampled_from([0, 0.2]))
        return [log_softmax(row) for row in logits.masked_fill(masked, -INF).tolist()]

    return draw_matrix()


def torch_log_probability(log_probs, text, blank):
    if not log_probs:
        return 0.0 if not text else -INF
    table = torch.tensor(log_probs, dtype=torch.float64).unsqueeze(1)
    loss = torch.nn.functional.ctc_loss(
        table, torch.tensor([text], dtype=torch.long), [len(log_probs)], [len(text)], blank, "none"
    )
    return -float(loss)


@slow_examples
@given(matrices(), st.integers(0, 3))
def test_reference_brute_force_equals_torch(log_probs, blank):
    found = brute_force(log_probs, blank=blank)
    for text, score, log_prob in found:
        assert score == log_prob
        assert score == pytest.approx(torch_log_probability(log_probs, text, blank), rel=1e-9, abs=1e-9)
    assert math.fsum(math.exp(hypothesis.score) for hypothesis in found) == pytest.approx(
        0 if any(max(row) == -INF for row in log_probs) else 1
    )


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
@slow_examples
@given(matrices())
def test_reference_unpruned_equals_brute_force(scorer, log_probs):
    """Prefix scores do not affect the score of a complete text."""
    expected = brute_force(log_probs, scorer=scorer)
    found, *_ = beam_search(log_probs, beam_size=UNPRUNED, nbest=len(expected) + 1, scorer=scorer)
    assert found.pop() == MISSING
    exact = {hypothesis.text: hypothesis for hypothesis in expected}
    assert len({hypothesis.text for hypothesis in found}) == len(found)
    for hypothesis, of_rank in zip(found, expected, strict=True):
        assert hypothesis.score == pytest.approx(of_rank.score, abs=1e-9)
        assert hypothesis[1:] == pytest.approx(exact[hypothesis.text][1:], abs=1e-9)


@given(matrices(max_frames=12, classes=5), st.integers(0, 4), st.integers(1, 30))
def test_reference_scores_bounded_by_text_probability(log_probs, blank, beam_size):
    found, *_ = beam_search(log_probs, blank=blank, beam_size=beam_size, nbest=beam_size)
    found = [hypothesis for hypothesis in found if hypothesis != MISSING]
    assert len({hypothesis.text for hypothesis in found}) == len(found)
    assert found == best_first(found)
    for text, score, log_prob in found:
        assert score == log_prob <= torch_log_probability(log_probs, text, blank) + 1e-9


def test_reference_scores_by_hand():
    a, b = math.log(0.6), math.log(0.4)  # the blank, the only token
    found, *_ = beam_search([[a, b], [a, b]], nbest=3)
    assert [hypothesis.text for hypothesis in found] == [(1,), (), None]
    assert [math.exp(hypothesis.score) for hypothesis in found] == pytest.approx([0.64, 0.36, 0])
    found, *_ = beam_search([[a, b]] * 3, nbest=4)
    assert [hypothesis.text for hypothesis in found] == [(1,), (), (1, 1), None]
    expected = [1 - 0.6**3 - 0.4 * 0.6 * 0.4, 0.6**3, 0.4 * 0.6 * 0.4, 0]
    assert [math.exp(hypothesis.score) for hypothesis in found] == pytest.approx(expected)


def test_reference_tie_order():
    """The order is: stay before extend, rank in the previous beam, token."""
    even = [math.log(1 / 3)] * 3

    def texts(frames, beam_size):
        found, margin, _ = beam_search([even] * frames, beam_size=beam_size, nbest=9)
        assert margin > 0.1
        return [hypothesis.text for hypothesis in found if hypothesis.text is not None]

    assert texts(1, 9) == [(), (1,), (2,)]
    assert texts(1, 2) == [(), (1,)]
    assert texts(2, 9) == [(1,), (2,), (), (1, 2), (2, 1)]
    assert texts(2, 4) == [(1,), (2,), (), (1, 2)]


LOG_PROBS = [[math.log(p) for p in row] for row in ROWS]


@pytest.mark.parametrize(("options", "texts"), CASES)
def test_reference_pruning_by_hand(options, texts):
    found, *_ = beam_search(LOG_PROBS, **{"nbest": 6, **options})
    assert [hypothesis.text for hypothesis in found if hypothesis.text is not None] == texts


def test_reference_pruning_keeps_probability_of_kept_prefixes():
    (best, *_), *_ = beam_search(LOG_PROBS, nbest=1, token_min_logp=math.log(0.25))
    # (2,): only blank 2; the paths 2 2 and 2 blank are lost, since 2 was pruned in frame 0.
    assert math.exp(best.score) == pytest.approx(0.5 * 0.7)
    found, *_ = beam_search(LOG_PROBS, nbest=3, token_min_logp=math.log(0.25))
    # (1,): 1 blank, 1 1, and blank 1, although frame 1 does not allow a new (1,).
    assert found[2].text == (1,)
    assert math.exp(found[2].score) == pytest.approx(0.3 * 0.1 + 0.3 * 0.2 + 0.5 * 0.2)


def test_reference_margin():
    def margin(*rows, **options):
        return beam_search([[math.log(p) for p in row] for row in rows], **options).margin

    assert margin([0.6, 0.3, 0.1], beam_size=2, nbest=1) == pytest.approx(math.log(2))
    assert margin([0.6, 0.3, 0.1], beam_size=3, nbest=3) == pytest.approx(math.log(2))
    assert margin([0.4, 0.4, 0.2], beam_size=1, nbest=1) == pytest.approx(math.log(2))  # a tie is no decision
    assert margin([0.6, 0.3, 0.1], beam_size=3, nbest=1, token_min_logp=math.log(0.29)) == pytest.approx(
        math.log(0.3 / 0.29)
    )
    assert margin([0.6, 0.3, 0.1], beam_size=3, nbest=1, token_top_k=1) == pytest.approx(math.log(2))
    assert margin([0.6, 0.3, 0.1], nbest=1, beam_threshold=math.log(2.1)) == pytest.approx(math.log(2.1 / 2))


def test_reference_nan_and_fully_masked_frames():
    row = [math.log(0.5)] * 2
    for value in (NAN, INF):
        assert beam_search([row, [value, -1.0]], nbest=2).hypotheses == [INVALID] * 2
    assert beam_search([row, [-INF, -INF]], nbest=2).hypotheses == [MISSING] * 2
    assert beam_search([], nbest=2).hypotheses == [Hypothesis((), 0.0, 0.0), MISSING]


def test_token_lm_scorer_by_hand():
    scorer = TokenLMScorer(TOKEN_MODEL, NAMES)
    ln10 = math.log(10)
    assert scorer.prefix_score(()) == 0
    assert scorer.prefix_score((1, 2)) == pytest.approx(ln10 * (-0.9 - 0.6))
    # P(</s> | a b) = the backoff weight of "a b" times P(</s> | b).
    assert scorer.text_score((1, 2)) == pytest.approx(ln10 * (-0.9 - 0.6 + 0.3 - 0.1))
    # P(_ | <s>) = the backoff weight of <s> times P(<unk>); P(b | _) = P(b), as <unk> has backoff weight 1.
    assert scorer.prefix_score((3, 2)) == pytest.approx(ln10 * (-0.3 - 1.5 - 0.7))
    assert scorer.text_score(()) == pytest.approx(ln10 * (-0.3 - 1.0))


def test_lexicon_and_word_lm_scorers_by_hand():
    lexicon, model = LexiconScorer(LEXICON, {3}, 0.5, -2.0), WordLMScorer(WORD_MODEL, LEXICON, {3})
    ln10 = math.log(10)
    for prefix, known, lm in [
        ((), 0, 0),
        ((3, 3), 0, 0),
        ((2,), 0, 0),
        ((2, 3), 0.5, -0.2),
        ((2, 3, 3), 0.5, -0.2),
        ((2, 3, 1), 0.5, -0.2),
        ((2, 2), 0, 0),
        ((2, 2, 3), -2.0, -0.5 - 2.0),
        ((1, 1), -2.0, 0),
        ((1, 1, 3, 1, 2, 3), -1.5, -0.5 - 2.0 + 0.1 - 0.3),
    ]:
        assert lexicon.prefix_score(prefix) == pytest.approx(known)
        assert model.prefix_score(prefix) == pytest.approx(ln10 * lm)
    assert lexicon.text_score((2, 2)) == -2.0
    assert lexicon.text_score((2, 3, 1, 2)) == 1.0
    assert model.text_score((2, 3)) == model.text_score((2,)) == pytest.approx(ln10 * (-0.2 - 0.3))
    assert model.text_score(()) == pytest.approx(ln10 * (-0.5 - 0.8))
    strict = LexiconScorer(LEXICON, {3})
    assert strict.prefix_score((2, 2)) == 0
    assert strict.text_score((2, 2)) == strict.prefix_score((2, 2, 3)) == strict.prefix_score((1, 1)) == -INF


def test_hotword_scorer_whole_words():
    scorer = HotwordScorer([(1, 2), (2,)], {3})
    for text, text_score, prefix_score in [
        ((1, 2), 2, 2),
        ((1,), 0, 1),
        ((1, 2, 2), 0, 0),
        ((2, 1, 2), 0, 0),
        ((2, 3, 1, 2, 3), 3, 3),
        ((2, 3, 2), 2, 2),
        ((2, 3, 1), 1, 2),
    ]:
        assert scorer.text_score(text) == text_score
        assert scorer.prefix_score(text) == prefix_score


def test_hotword_scorer_phrase_separators():
    scorer = HotwordScorer([(1, 3, 2), (2,)], {3, 4})
    for text, text_score, prefix_score in [
        ((1,), 0, 1),
        ((1, 3), 0, 1),
        ((1, 4, 2), 2 + 1, 2),
        ((1, 4, 2, 3), 2 + 1, 2 + 1),
        ((1, 3, 3, 2), 1, 1),
    ]:
        assert scorer.text_score(text) == text_score
        assert scorer.prefix_score(text) == prefix_score


def test_hotword_scorer_overlapping_without_separators():
    scorer = HotwordScorer([(1, 2), (2, 1), (1, 2, 2, 1)])
    for text, text_score, prefix_score in [
        ((1, 2), 2, 4),
        ((1, 2, 1), 4, 5),
        ((1, 2, 2), 2, 5),
        ((1, 2, 2, 1), 2 + 2 + 4, 2 + 2 + 4 + 1),
        ((1, 2, 3), 2, 2),
    ]:
        assert scorer.text_score(text) == text_score
        assert scorer.prefix_score(text) == prefix_score


def test_reference_collapse():
    assert collapse((0, 1, 1, 0, 1, 2, 2, 0), 0) == (1, 1, 2)
    assert collapse((0, 1, 1), 1) == (0,)
