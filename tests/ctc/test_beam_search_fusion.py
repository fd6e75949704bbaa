"""beam_search with language models, lexicons and hot words, against their definitions."""

from typing import NamedTuple

import pytest
import torch
from helpers.beam_search_checks import (
    batches,
    check_against_reference,
    check_invariants,
    hypotheses,
    log_prob_rows,
    texts,
    to_ngram_model,
    torch_log_probs,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import scorers
from reference.beam_search import ZERO_SCORER, Hypothesis, brute_force
from reference.ngram import BackoffModel, backoff_models

from crnn_ext.ctc import beam_search
from crnn_ext.text import Charset, HotWords, Lexicon

# The tables hold float32.
CLOSE = {"rel": 1e-5, "abs": 1e-5}
CHARACTERS = "ab c"  # and the blank: five classes
WORDS = ["a", "b", "ab", "ba", "bb", "cab", "abba"]
PHRASES = ["a", "ab", "bab", "a b", "ab c", "bb"]


class Constraints(NamedTuple):
    """Options of beam_search, and what they add by definition."""

    options: dict
    scorer: object


def encoded(charset, word):
    tokens, _ = charset.encode([word], padded=False)
    return tuple(tokens.tolist())


def token_model(model, charset):
    """Over the characters of a charset; the space and what else the model lacks are unknown."""
    names = dict(zip(charset.encode(list(CHARACTERS), padded=False)[0].tolist(), CHARACTERS, strict=True))
    return to_ngram_model(model, charset, space="<unk>"), scorers.TokenLMScorer(model, names)


def lexicon_of(words, charset, separators, word_score, unknown_score):
    spellings = {encoded(charset, word): word for word in words}
    public = Lexicon.from_words(words, charset, separators=separators, unknown_score=unknown_score)
    classes = set(encoded(charset, separators))
    return public, scorers.LexiconScorer(spellings, classes, word_score, unknown_score), spellings, classes


@st.composite
def constraints(draw, blank):
    """For five classes; each of the four kinds with probability a half."""
    charset = Charset(CHARACTERS, blank)
    separators = draw(st.sampled_from([" ", " ", ""]))
    scores = st.floats(-3, 3, width=16)
    options, terms = {"token_score": draw(scores)}, []
    terms.append((options["token_score"], scorers.TokenCountScorer()))
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, unique=True))
    if draw(st.booleans()):
        options["word_score"] = draw(scores)
        unknown_score = draw(st.none() | scores)
        lexicon, scorer, spellings, classes = lexicon_of(
            words, charset, separators, options["word_score"], unknown_score
        )
        options["lexicon"] = lexicon
        terms.append((1.0, scorer))
    if draw(st.booleans()):
        options["lm_weight"] = draw(st.floats(0, 2, width=16))
        model = draw(backoff_models())
        if "lexicon" in options and draw(st.booleans()):
            # Some of the model's words are in the lexicon, some are not; and the other way round.
            # Those of one letter come last: alone they would be taken for a model over characters.
            names = sorted(words, key=len, reverse=True)
            model = renamed(model, dict(zip("abcd", names, strict=False)))
            options["lm"] = to_ngram_model(model, options["lexicon"])
            scorer = scorers.WordLMScorer(model, spellings, classes)
        else:
            options["lm"], scorer = token_model(model, charset)
        terms.append((options["lm_weight"], scorer))
    if draw(st.booleans()):
        options["hotword_weight"] = draw(st.floats(0, 3, width=16))
        phrases = draw(st.lists(st.sampled_from(PHRASES), min_size=1, unique=True))
        options["hotwords"] = HotWords.from_words(phrases, charset, separators=separators)
        spelt = [encoded(charset, phrase) for phrase in phrases]
        scorer = scorers.HotwordScorer(spelt, set(encoded(charset, separators)))
        terms.append((options["hotword_weight"], scorer))
    return Constraints(options, scorers.WeightedSum(*terms))


def renamed(model, names):
    """The same model of other words."""
    ngrams = {
        tuple(names.get(word, word) for word in ngram): numbers for ngram, numbers in model.ngrams.items()
    }
    return BackoffModel(model.order, ngrams)


@st.composite
def constrained_batches(draw, max_frames):
    logits, lengths, blank = draw(batches(max_frames=max_frames, min_classes=5, max_classes=5, ties=False))
    return logits, lengths, blank, draw(constraints(blank))


@settings(deadline=None, max_examples=60)
@given(constrained_batches(max_frames=4))
def test_a_beam_that_keeps_everything_finds_every_text(device, batch):
    logits, lengths, blank, (options, scorer) = batch
    result = beam_search(logits.to(device), lengths, blank=blank, beam_size=512, nbest=512, **options)
    check_invariants(result, logits.to(device), lengths, blank, 512)
    for n, length in enumerate(lengths):
        rows = log_prob_rows(logits, n, length)
        if any(x != x for row in rows for x in row):
            continue
        expected = brute_force(rows, blank=blank, scorer=scorer)
        exact = {hypothesis.text: hypothesis for hypothesis in expected}
        assert set(texts(result, n)) == set(exact)
        for found, in_order in zip(hypotheses(result, n), expected, strict=False):
            assert found.score == pytest.approx(exact[found.text].score, **CLOSE)
            assert found.score == pytest.approx(in_order.score, **CLOSE)
            assert found.log_prob == pytest.approx(exact[found.text].log_prob, **CLOSE)


@settings(deadline=None, max_examples=120)
@given(
    constrained_batches(max_frames=9),
    st.integers(1, 16),
    st.none() | st.integers(1, 4),
    st.none() | st.floats(0.5, 15),
)
def test_equals_a_plain_search(device, batch, beam_size, top_k, threshold):
    logits, lengths, blank, (options, scorer) = batch
    logits = logits.to(device)
    common = {"blank": blank, "beam_size": beam_size, "nbest": min(4, beam_size)}
    common |= {"token_top_k": top_k, "beam_threshold": threshold}
    result = beam_search(logits, lengths, **common, **options)
    all_weights = [scorer] * len(lengths)
    compared = check_against_reference(result, logits, lengths, scorers=all_weights, close=CLOSE, **common)
    assume(compared or not len(lengths))


@settings(deadline=None, max_examples=30)
@given(constrained_batches(max_frames=8), st.booleans())
def test_rescored_texts_keep_what_is_added(device, batch, with_rescoring):
    """log_probs are of the text alone; what the options add is the same with rescoring and without."""
    logits, lengths, blank, (options, scorer) = batch
    result = beam_search(
        logits.to(device), lengths, blank=blank, beam_size=8, nbest=4, rescore=with_rescoring, **options
    )
    check_invariants(result, logits.to(device), lengths, blank, 4)
    for n, length in enumerate(lengths):
        exact = torch_log_probs(log_prob_rows(logits, n, length), texts(result, n), blank)
        for (text, score, log_prob), log_probability in zip(hypotheses(result, n), exact, strict=False):
            assert score == pytest.approx(log_prob + scorer.text_score(text), **CLOSE)
            if with_rescoring:
                assert log_prob == pytest.approx(log_probability, **CLOSE)
            else:
                assert log_prob <= log_probability + 1e-5 * (1 + abs(log_probability))


CHARSET = Charset(" abc")
NAMES = dict(enumerate(["<blank>", *" abc"]))


def random_logits(device, *shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double().to(device)


def peaked(device, text, blank_between=True):
    """(T, 1, 5) logits that say the text: each character in a frame, and then a blank."""
    path = [label for character in text for label in (*encoded(CHARSET, character), 0)[: 1 + blank_between]]
    return (8.0 * torch.nn.functional.one_hot(torch.tensor(path), 5)).double().unsqueeze(1).to(device)


def test_each_sample_has_its_own_words(device):
    logits = random_logits(device, 8, 1, 5).expand(-1, 4, -1)
    lexicons, hotwords, expected = [], [], []
    for words, phrases in [(["ab", "c"], ["c"]), (["ba"], None), (None, ["ab", "b a"]), (None, None)]:
        scorer = []
        lexicons.append(None)
        hotwords.append(None)
        if words is not None:
            lexicons[-1], by_definition, *_ = lexicon_of(words, CHARSET, " ", 0.7, -1.5)
            scorer.append((1.0, by_definition))
        if phrases is not None:
            hotwords[-1] = HotWords.from_words(phrases, CHARSET)
            spelt = [encoded(CHARSET, phrase) for phrase in phrases]
            scorer.append((1.25, scorers.HotwordScorer(spelt, {1})))
        expected.append(scorers.WeightedSum(*scorer))
    common = {"beam_size": 12, "nbest": 5}
    result = beam_search(
        logits, lexicon=lexicons, word_score=0.7, hotwords=hotwords, hotword_weight=1.25, **common
    )
    assert check_against_reference(result, logits, [8] * 4, scorers=expected, close=CLOSE, **common) == 4
    # One object for all, alone or in a sequence, is the same.
    for n, (lexicon, hot) in enumerate(zip(lexicons, hotwords, strict=True)):
        for one in (lambda x: x, lambda x: [x] * 4, lambda x: (x,) * 4):
            same = beam_search(
                logits, lexicon=one(lexicon), word_score=0.7, hotwords=one(hot), hotword_weight=1.25, **common
            )
            for field, expected_field in zip(same, result, strict=True):
                assert torch.equal(field[n], expected_field[n])


def test_unbatched(device):
    logits = random_logits(device, 7, 1, 5)
    lexicon = Lexicon.from_words(["ab", "ca"], CHARSET)
    hotwords = HotWords.from_words(["ca"], CHARSET)
    batched = beam_search(logits, lexicon=lexicon, hotwords=hotwords, nbest=3)
    for wrap in (lambda x: x, lambda x: [x]):
        result = beam_search(logits[:, 0], lexicon=wrap(lexicon), hotwords=wrap(hotwords), nbest=3)
        for field, expected in zip(result, batched, strict=True):
            assert torch.equal(field, expected[0])


@settings(deadline=None, max_examples=30)
@given(constrained_batches(max_frames=9))
def test_a_batch_equals_its_samples_one_by_one(device, batch):
    logits, lengths, blank, (options, _) = batch
    logits = logits.to(device)
    together = beam_search(logits, lengths, blank=blank, nbest=3, **options)
    for n, length in enumerate(lengths.tolist()):
        alone = beam_search(logits[:length, n], blank=blank, nbest=3, **options)
        for name, field in alone._asdict().items():
            expected = getattr(together, name)[n]
            if field.dim() == 2:
                expected = expected[:, :length]
            torch.testing.assert_close(field, expected, rtol=0, atol=0, equal_nan=True, msg=name)


def test_without_frames_the_end_of_the_text_counts(device):
    model = BackoffModel(1, {("<s>",): (-99.0, 0.0), ("</s>",): (-0.5, 0.0), ("a",): (-1.0, 0.0)})
    lm, scorer = to_ngram_model(model, CHARSET, space="<unk>"), scorers.TokenLMScorer(model, NAMES)
    lexicon = Lexicon.from_words(["a"], CHARSET)
    result = beam_search(torch.zeros(0, 2, 5, device=device), lm=lm, lm_weight=2.0, lexicon=lexicon, nbest=2)
    for n in range(2):
        (found,) = (h for h in hypotheses(result, n) if h.text is not None)
        assert found == Hypothesis((), pytest.approx(2.0 * scorer.text_score(())), 0.0)


def test_a_strict_lexicon_may_leave_nothing(device):
    lexicon = Lexicon.from_words(["abc"], CHARSET)
    logits = peaked(device, "abc")
    logits[..., :2] = -float("inf")  # without blanks and separators two frames cannot spell the word
    result = beam_search(logits[:2], lexicon=lexicon, nbest=2)
    assert result.lengths.tolist() == [[-1, -1]]
    assert result.scores.tolist() == [[-float("inf")] * 2]
    assert texts(beam_search(peaked(device, "abc"), lexicon=lexicon)) == [encoded(CHARSET, "abc")]


@pytest.mark.parametrize("text", ["ab", "ab ab", " ab  ab ", "a", "ab a"])
def test_words_end_with_a_separator_or_the_text(device, text):
    lexicon = Lexicon.from_words(["ab"], CHARSET)
    expected = [] if "a" in text.split() else [encoded(CHARSET, text)]
    found = texts(beam_search(peaked(device, text), lexicon=lexicon))
    assert (found == expected) if expected else (encoded(CHARSET, text) not in found)


def test_same_bits_from_any_number_of_threads(device):
    logits = random_logits(device, 12, 5, 5).float()
    lexicon, *_ = lexicon_of(WORDS, CHARSET, " ", 0.3, -1.0)
    options = {"lexicon": lexicon, "hotwords": HotWords.from_words(PHRASES, CHARSET), "nbest": 4}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = beam_search(logits, **options)
        torch.set_num_threads(4)
        four = beam_search(logits, **options)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(one, four, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_sample_with_nan_leaves_its_neighbours_alone(device, odd):
    logits = random_logits(device, 6, 3, 5)
    options = {"lexicon": Lexicon.from_words(["ab", "c"], CHARSET, unknown_score=-1.0), "nbest": 2}
    expected = beam_search(logits, **options)
    logits[2, 1, 3] = odd
    result = beam_search(logits, **options)
    assert result.lengths[1].tolist() == [-1, -1]
    assert result.scores[1].isnan().all()
    for field, expected_field in zip(result, expected, strict=True):
        assert torch.equal(field[[0, 2]], expected_field[[0, 2]])


def small_model(tokens, **options):
    ngrams = {(word,): (-1.0, 0.0) for word in ("<s>", "</s>", "<unk>", "a", "ab")}
    return to_ngram_model(BackoffModel(1, ngrams), tokens, **options)


def test_what_is_for_other_classes_or_words_is_refused():
    logits = torch.zeros(4, 2, 6)
    lexicon = Lexicon.from_words(["a", "ab"], CHARSET)
    for options in (
        {"lm": small_model(CHARSET, space="<unk>")},
        {"lexicon": lexicon},
        {"hotwords": HotWords.from_words(["a"], CHARSET)},
    ):
        (name,) = options
        with pytest.raises(ValueError, match=rf"^{name} .*6 classes, got 5$"):
            beam_search(logits, **options)
    over_words = small_model(lexicon)
    for others in (None, [lexicon, None], Lexicon.from_words(["a", "ab"], CHARSET)):
        with pytest.raises(ValueError, match=r"^lexicon must be lm\.lexicon"):
            beam_search(logits[..., :5], lm=over_words, lexicon=others)


@pytest.mark.parametrize("blank", [1, 4])
def test_what_is_for_another_blank_is_refused(blank):
    logits = torch.zeros(4, 2, 5)
    charset = Charset(" abc", blank)
    lexicon = Lexicon.from_words(["a", "ab"], charset)
    for options in (
        {"lm": small_model(charset, space="<unk>")},
        {"lm": small_model(lexicon)},
        {"lexicon": lexicon},
        {"lexicon": [None, lexicon]},
        {"hotwords": HotWords.from_words(["a"], charset)},
    ):
        (name,) = options
        with pytest.raises(ValueError, match=f"^{name} must be for a charset with blank 0, got {blank}$"):
            beam_search(logits, **options)
        if name != "lm" or options["lm"].lexicon is None:
            beam_search(logits, blank=blank, **options)
    # Of spellings in the names of tokens it is not known.
    spelt = Lexicon.from_spellings({"a": [["a"]]}, ["a", "b", "c", "d", "<blank>"])
    assert spelt.blank is None
    beam_search(logits, blank=blank, lexicon=spelt)


def test_an_empty_batch_has_any_model(device):
    lexicon = Lexicon.from_words(["a", "ab"], CHARSET)
    result = beam_search(torch.zeros(3, 0, 5, device=device), lm=small_model(lexicon), lexicon=lexicon)
    assert result.tokens.shape == (0, 1, 3)


def test_no_weight_is_nothing_at_all(device):
    """Factors of 0 leave what there is without the object, but for what a lexicon forbids."""
    logits = random_logits(device, 7, 2, 5)
    common = {"nbest": 6, "beam_size": 9}
    options = {
        "lm": small_model(CHARSET, space="<unk>"),
        "lm_weight": 0.0,
        "lexicon": Lexicon.from_words(["ab"], CHARSET, unknown_score=0.0),
        "hotwords": HotWords.from_words(["ab", "c"], CHARSET),
        "hotword_weight": 0.0,
    }
    result = beam_search(logits, **options, **common)
    assert check_against_reference(result, logits, [7, 7], scorers=[ZERO_SCORER] * 2, **common) == 2
