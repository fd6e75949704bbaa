"""beam_search with language models, lexicons and hot words, against the reference scorers."""

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
from helpers.fuzz import slow_examples
from helpers.logits import random_logits
from helpers.results import assert_bitwise_equal, assert_equal_for_any_thread_count
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import scorers
from reference.beam_search import ZERO_SCORER, Hypothesis, brute_force
from reference.ngram import BackoffModel, backoff_models

from crnn_ext.ctc import beam_search
from crnn_ext.text import Charset, HotWords, Lexicon

# The tables hold float32 values.
CLOSE = {"rel": 1e-5, "abs": 1e-5}
CHARACTERS = "ab c"  # five classes with the blank
WORDS = ["a", "b", "ab", "ba", "bb", "cab", "abba"]
PHRASES = ["a", "ab", "bab", "a b", "ab c", "bb"]


class Fusion(NamedTuple):
    """Options of beam_search, and the reference scorer for them."""

    options: dict
    scorer: object


def encoded(charset, word):
    tokens, _ = charset.encode([word], padded=False)
    return tuple(tokens.tolist())


def token_model(model, charset):
    """An NGramModel over a charset, and its scorer; the space and characters that it lacks are <unk>."""
    names = dict(zip(charset.encode(list(CHARACTERS), padded=False)[0].tolist(), CHARACTERS, strict=True))
    return to_ngram_model(model, charset, space="<unk>"), scorers.TokenLMScorer(model, names)


def lexicon_of(words, charset, separators, word_score, unknown_score):
    spellings = {encoded(charset, word): word for word in words}
    lexicon = Lexicon.from_words(words, charset, separators=separators, unknown_score=unknown_score)
    classes = set(encoded(charset, separators))
    return lexicon, scorers.LexiconScorer(spellings, classes, word_score, unknown_score), spellings, classes


@st.composite
def fusions(draw, blank):
    """A Fusion over five classes: lexicon, language model and hot words, each with probability 1/2."""
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
            # Neither the words of the model nor those of the lexicon include all of the other. Words of one
            # letter come last: alone, they would make a model over characters.
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
        spellings = [encoded(charset, phrase) for phrase in phrases]
        scorer = scorers.HotwordScorer(spellings, set(encoded(charset, separators)))
        terms.append((options["hotword_weight"], scorer))
    return Fusion(options, scorers.WeightedSum(*terms))


def renamed(model, names):
    """The model with other words."""
    ngrams = {
        tuple(names.get(word, word) for word in ngram): numbers for ngram, numbers in model.ngrams.items()
    }
    return BackoffModel(model.order, ngrams)


@st.composite
def fusion_batches(draw, max_frames):
    logits, lengths, blank = draw(batches(max_frames=max_frames, min_classes=5, max_classes=5, ties=False))
    return logits, lengths, blank, draw(fusions(blank))


@given(fusion_batches(max_frames=4))
def test_fusion_unpruned_equals_brute_force(device, batch):
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
        for found, of_rank in zip(hypotheses(result, n), expected, strict=False):
            assert found.score == pytest.approx(exact[found.text].score, **CLOSE)
            assert found.score == pytest.approx(of_rank.score, **CLOSE)
            assert found.log_prob == pytest.approx(exact[found.text].log_prob, **CLOSE)


@given(
    fusion_batches(max_frames=9),
    st.integers(1, 16),
    st.none() | st.integers(1, 4),
    st.none() | st.floats(0.5, 15),
)
def test_fusion_equals_reference(device, batch, beam_size, top_k, threshold):
    logits, lengths, blank, (options, scorer) = batch
    logits = logits.to(device)
    common = {"blank": blank, "beam_size": beam_size, "nbest": min(4, beam_size)}
    common |= {"token_top_k": top_k, "beam_threshold": threshold}
    result = beam_search(logits, lengths, **common, **options)
    all_weights = [scorer] * len(lengths)
    compared = check_against_reference(result, logits, lengths, scorers=all_weights, close=CLOSE, **common)
    assume(compared or not len(lengths))


@slow_examples
@given(fusion_batches(max_frames=8), st.booleans())
def test_fusion_with_and_without_rescoring(device, batch, with_rescoring):
    """log_probs exclude the added scores, which are the same with and without rescoring."""
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


def peaked(device, text, blank_between=True):
    """(T, 1, 5) logits that spell the text: one frame per character, followed by a blank frame."""
    path = [label for character in text for label in (*encoded(CHARSET, character), 0)[: 1 + blank_between]]
    return (8.0 * torch.nn.functional.one_hot(torch.tensor(path), 5)).double().unsqueeze(1).to(device)


def test_fusion_lexicon_and_hotwords_per_sample(device):
    logits = random_logits(8, 1, 5, device=device).double().expand(-1, 4, -1)
    lexicons, hotwords, expected = [], [], []
    for words, phrases in [(["ab", "c"], ["c"]), (["ba"], None), (None, ["ab", "b a"]), (None, None)]:
        terms = []
        lexicons.append(None)
        hotwords.append(None)
        if words is not None:
            lexicons[-1], scorer, *_ = lexicon_of(words, CHARSET, " ", 0.7, -1.5)
            terms.append((1.0, scorer))
        if phrases is not None:
            hotwords[-1] = HotWords.from_words(phrases, CHARSET)
            spellings = [encoded(CHARSET, phrase) for phrase in phrases]
            terms.append((1.25, scorers.HotwordScorer(spellings, {1})))
        expected.append(scorers.WeightedSum(*terms))
    common = {"beam_size": 12, "nbest": 5}
    result = beam_search(
        logits, lexicon=lexicons, word_score=0.7, hotwords=hotwords, hotword_weight=1.25, **common
    )
    assert check_against_reference(result, logits, [8] * 4, scorers=expected, close=CLOSE, **common) == 4
    # One object for all samples, alone or repeated in a sequence, gives the same result.
    common |= {"word_score": 0.7, "hotword_weight": 1.25}
    for n, (lexicon, hotword) in enumerate(zip(lexicons, hotwords, strict=True)):
        for wrap in (lambda x: x, lambda x: [x] * 4, lambda x: (x,) * 4):
            same = beam_search(logits, lexicon=wrap(lexicon), hotwords=wrap(hotword), **common)
            assert_bitwise_equal([field[n] for field in same], [field[n] for field in result])


def test_fusion_unbatched(device):
    logits = random_logits(7, 1, 5, device=device).double()
    lexicon = Lexicon.from_words(["ab", "ca"], CHARSET)
    hotwords = HotWords.from_words(["ca"], CHARSET)
    batched = beam_search(logits, lexicon=lexicon, hotwords=hotwords, nbest=3)
    for wrap in (lambda x: x, lambda x: [x]):
        result = beam_search(logits[:, 0], lexicon=wrap(lexicon), hotwords=wrap(hotwords), nbest=3)
        assert_bitwise_equal(result, [field[0] for field in batched])


@slow_examples
@given(fusion_batches(max_frames=9))
def test_fusion_batch_equals_single_samples(device, batch):
    logits, lengths, blank, (options, _) = batch
    logits = logits.to(device)
    batched = beam_search(logits, lengths, blank=blank, nbest=3, **options)
    for n, length in enumerate(lengths.tolist()):
        single = beam_search(logits[:length, n], blank=blank, nbest=3, **options)
        for name, field in single._asdict().items():
            expected = getattr(batched, name)[n]
            if field.dim() == 2:
                expected = expected[:, :length]
            torch.testing.assert_close(field, expected, rtol=0, atol=0, equal_nan=True, msg=name)


def test_fusion_end_of_text_without_frames(device):
    model = BackoffModel(1, {("<s>",): (-99.0, 0.0), ("</s>",): (-0.5, 0.0), ("a",): (-1.0, 0.0)})
    lm, scorer = to_ngram_model(model, CHARSET, space="<unk>"), scorers.TokenLMScorer(model, NAMES)
    lexicon = Lexicon.from_words(["a"], CHARSET)
    result = beam_search(torch.zeros(0, 2, 5, device=device), lm=lm, lm_weight=2.0, lexicon=lexicon, nbest=2)
    for n in range(2):
        (found,) = (h for h in hypotheses(result, n) if h.text is not None)
        assert found == Hypothesis((), pytest.approx(2.0 * scorer.text_score(())), 0.0)


def test_fusion_strict_lexicon_without_hypotheses(device):
    lexicon = Lexicon.from_words(["abc"], CHARSET)
    logits = peaked(device, "abc")
    logits[..., :2] = -float("inf")  # two frames without blank and separator cannot spell the word
    result = beam_search(logits[:2], lexicon=lexicon, nbest=2)
    assert result.lengths.tolist() == [[-1, -1]]
    assert result.scores.tolist() == [[-float("inf")] * 2]
    assert texts(beam_search(peaked(device, "abc"), lexicon=lexicon)) == [encoded(CHARSET, "abc")]


@pytest.mark.parametrize("text", ["ab", "ab ab", " ab  ab ", "a", "ab a"])
def test_fusion_words_end_at_separator_or_end_of_text(device, text):
    lexicon = Lexicon.from_words(["ab"], CHARSET)
    expected = [] if "a" in text.split() else [encoded(CHARSET, text)]
    found = texts(beam_search(peaked(device, text), lexicon=lexicon))
    assert (found == expected) if expected else (encoded(CHARSET, text) not in found)


def test_fusion_bitwise_equal_for_any_thread_count(device):
    logits = random_logits(12, 5, 5, device=device).double().float()
    lexicon, *_ = lexicon_of(WORDS, CHARSET, " ", 0.3, -1.0)
    options = {"lexicon": lexicon, "hotwords": HotWords.from_words(PHRASES, CHARSET), "nbest": 4}
    assert_equal_for_any_thread_count(lambda: beam_search(logits, **options))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_fusion_nan_stays_in_its_sample(device, bad):
    logits = random_logits(6, 3, 5, device=device).double()
    options = {"lexicon": Lexicon.from_words(["ab", "c"], CHARSET, unknown_score=-1.0), "nbest": 2}
    expected = beam_search(logits, **options)
    logits[2, 1, 3] = bad
    result = beam_search(logits, **options)
    assert result.lengths[1].tolist() == [-1, -1]
    assert result.scores[1].isnan().all()
    assert_bitwise_equal([field[[0, 2]] for field in result], [field[[0, 2]] for field in expected])


def small_model(tokens, **options):
    ngrams = {(word,): (-1.0, 0.0) for word in ("<s>", "</s>", "<unk>", "a", "ab")}
    return to_ngram_model(BackoffModel(1, ngrams), tokens, **options)


def test_fusion_rejects_other_classes_or_words():
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
def test_fusion_rejects_other_blank(blank):
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
    # A lexicon from spellings does not know its blank.
    lexicon = Lexicon.from_spellings({"a": [["a"]]}, ["a", "b", "c", "d", "<blank>"])
    assert lexicon.blank is None
    beam_search(logits, blank=blank, lexicon=lexicon)


def test_fusion_empty_batch(device):
    lexicon = Lexicon.from_words(["a", "ab"], CHARSET)
    result = beam_search(torch.zeros(3, 0, 5, device=device), lm=small_model(lexicon), lexicon=lexicon)
    assert result.tokens.shape == (0, 1, 3)


def test_fusion_zero_weights(device):
    """With weights of 0, language model, lexicon and hot words change no score."""
    logits = random_logits(7, 2, 5, device=device).double()
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
