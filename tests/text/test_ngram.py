"""n-gram models: scores against KenLM and the backoff reference, units, spaces, copies."""

import math
import multiprocessing
import pickle
import random
import re
import tempfile
from pathlib import Path

import pytest
import torch
from helpers.paths import SHARED_DATA
from hypothesis import given
from hypothesis import strategies as st
from reference.automaton import assert_valid, prefix_weights
from reference.ngram import LN10, BackoffModel, backoff_models, estimate_model

from crnn_ext.text import Charset, Lexicon, NGramModel

PARLANCE = SHARED_DATA / "posteriors/parlance/test.arpa"
texts = st.lists(st.sampled_from("abcdxy"), max_size=8)  # no model contains x and y


def from_text(text, *arguments, **options):
    """The model of an ARPA file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.arpa")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return NGramModel.from_arpa(path, *arguments, **options)


def kenlm_scorer(path):
    """A function that scores a sequence of words by KenLM, in nats."""
    kenlm = pytest.importorskip("kenlm", reason="the package kenlm is not installed")
    config = kenlm.Config()
    config.show_progress = False
    model = kenlm.Model(str(path), config)

    def score(words, bos=True, eos=True):
        # The sum by KenLM itself is in float32.
        return LN10 * sum(log10_prob for log10_prob, *_ in model.full_scores(" ".join(words), bos, eos))

    return score


def close(value):
    return pytest.approx(value, rel=0, abs=1e-4)


@given(model=backoff_models(), text=texts, bos=st.booleans(), eos=st.booleans())
def test_ngram_equals_backoff_reference(model, text, bos, eos):
    lm = from_text(model.arpa(), list("abcdxy"))
    assert_valid(lm.automaton, num_symbols=6)
    assert (lm.order, lm.num_symbols, lm.num_classes, lm.lexicon) == (model.order, 6, 6, None)
    assert lm.score(text, bos=bos, eos=eos) == close(model.score(text, bos, eos))

    symbols = ["abcdxy".index(name) for name in text]
    weights, final = prefix_weights(lm.automaton, symbols, start=None if bos else 0)
    assert weights == [close(model.score(text[:n], bos, eos=False)) for n in range(len(text) + 1)]
    assert weights[-1] + final == close(model.score(text, bos, eos=True))


@given(
    model=backoff_models(for_kenlm=True),
    sentences=st.lists(texts, min_size=1),
    bos=st.booleans(),
    eos=st.booleans(),
)
def test_ngram_equals_kenlm(model, sentences, bos, eos):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.arpa")
        path.write_text(model.arpa())
        kenlm_score = kenlm_scorer(path)
        lm = NGramModel.from_arpa(path, list("abcdxy"))
    for text in sentences:
        assert lm.score(text, bos=bos, eos=eos) == close(kenlm_score(text, bos, eos))


@pytest.mark.skipif(not PARLANCE.is_file(), reason="needs ../shared/data")
def test_ngram_real_word_model_equals_kenlm():
    kenlm_score = kenlm_scorer(PARLANCE)
    unigrams = PARLANCE.read_text().split("\\2-grams:")[0].splitlines()
    words = [line.split("\t")[1] for line in unigrams if "\t" in line]
    lexicon = Lexicon.from_words(
        [word for word in words if word.isalpha()], Charset.from_labels(["abcdefghijklmnopqrstuvwxyz "])
    )
    lm = NGramModel.from_arpa(PARLANCE, lexicon)
    assert lm.order == 5
    assert lm.lexicon is lexicon
    assert (lm.num_symbols, lm.num_classes) == (len(lexicon) + 1, 28)
    assert_valid(lm.automaton, lm.num_symbols)
    generator = random.Random(0)
    for _ in range(200):
        sentence = generator.choices([*lexicon.words, "unheard"], k=generator.randrange(10))
        assert lm.score(sentence) == close(kenlm_score(sentence))
    everyday = "looking on a little more loin also would consider higher to look good"
    assert lm.score(everyday) == close(kenlm_score(everyday.split()))


SENTENCES = [
    "the fake friend of the family, like the",
    "a beam of light fell on the floor of the hall",
    "the family had a friend, and the friend had a hat",
]


def units(text, space="<space>"):
    return [space if character == " " else character for character in text]


def character_model(space="<space>"):
    return estimate_model(4, [units(text, space) for text in SENTENCES])


@pytest.mark.parametrize("blank", [0, 5, 30])
def test_ngram_character_model_equals_kenlm(tmp_path, blank):
    path = tmp_path / "characters.arpa"
    path.write_text(character_model().arpa())
    kenlm_score = kenlm_scorer(path)
    charset = Charset("abcdefghijklmnopqrstuvwxyz ,.!", blank)
    lm = NGramModel.from_arpa(path, charset)
    assert (lm.order, lm.num_symbols, lm.num_classes, lm.lexicon) == (4, 31, 31, None)
    assert_valid(lm.automaton, 31)
    for text in (*SENTENCES, "the hat of the friend", "xylophone! of the", "a", ""):
        assert lm.score(text) == close(kenlm_score(units(text)))
        assert lm.score(charset.encode(text)[0].tolist()) == lm.score(text)
        weights, final = prefix_weights(lm.automaton, charset.encode(text)[0].tolist())
        assert weights[-1] + final == close(lm.score(text))


@given(context=st.text("abdefhint ,", max_size=5))
def test_ngram_probabilities_sum_to_one(context):
    model = character_model()
    charset = Charset.from_labels(SENTENCES)
    lm = from_text(model.arpa(), charset)
    before = lm.score(context, eos=False)
    following = [lm.score(context + character, eos=False) for character in charset.characters]
    unknown = lm.score([*charset.encode(context)[0].tolist(), charset.blank], eos=False)
    total = sum(math.exp(score - before) for score in [*following, unknown, lm.score(context)])
    assert total == pytest.approx(1, abs=1e-5)


def test_ngram_root_has_edge_for_every_symbol():
    lm = from_text(character_model().arpa(), Charset("abcé ", blank=2))
    first, last = lm.automaton.first_edge[:2].tolist()
    assert (first, last) == (0, 6)
    assert lm.automaton.edge_symbol[first:last].tolist() == list(range(6))
    assert lm.automaton.fail_state[0] == 0


def test_ngram_table_size():
    """The tables have states only for the part of the model that the tokens can reach."""
    model = character_model().arpa()
    full = from_text(model, Charset.from_labels(SENTENCES)).automaton
    small = from_text(model, Charset("the")).automaton
    assert len(small.fail_state) < len(full.fail_state) / 10
    assert len(small.edge_symbol) < len(full.edge_symbol) / 10


@pytest.mark.parametrize("name", ["<space>", "\u2581", "|", "_"])
def test_ngram_space_unit(name):
    model = character_model(space=name).arpa()
    charset = Charset.from_labels(SENTENCES)
    expected = from_text(character_model().arpa(), charset).score(SENTENCES[0])
    assert from_text(model, charset).score(SENTENCES[0]) == expected
    assert from_text(model, charset, space=name).score(SENTENCES[0]) == expected
    assert from_text(model, [*charset.characters]).score([*SENTENCES[0]]) == expected
    for separator in ("|", "<sil>"):
        lm = from_text(model, units(charset.characters, separator), separator=separator)
        assert lm.score(units(SENTENCES[0], separator)) == expected
    # As the name of a class, it is matched by name.
    assert from_text(model, units(charset.characters, name)).score(units(SENTENCES[0], name)) == expected


def test_ngram_ambiguous_space_unit():
    def ask(text, *arguments, **options):
        with pytest.raises(ValueError, match=r"^from_arpa: space ") as caught:
            from_text(text, *arguments, **options)
        return re.sub(r"/\S*/", "", str(caught.value))

    asks = (
        "from_arpa: space must name the unit of model.arpa for the token ' ' ('<unk>' if none): candidates "
        "among <space>, \u2581, |, _ that are not tokens: "
    )
    without = character_model(space="e").arpa()
    both = character_model().arpa().replace("\ty\t", "\t_\t").replace(" y", " _").replace("y ", "_ ")
    charset = Charset("abc ")
    assert ask(without, charset) == f"{asks}none"
    assert ask(both, charset) == f"{asks}<space>, _"
    assert from_text(both, Charset("abc_ ")).score(" ") == from_text(both, charset, space="<space>").score(
        " "
    )
    assert from_text(without, charset, space="<unk>").score(" ") == from_text(without, ["a", "?"]).score(
        ["?"]
    )
    assert ask(both, charset, space="|") == "from_arpa: space must be a unit of model.arpa, got '|'"
    assert (
        ask(both, Charset("abc"), space="_") == "from_arpa: space must be None if ' ' is not a token, got '_'"
    )
    # A unit with the name of the separator takes precedence.
    lm = from_text(both, ["a", "_"], separator="_")
    assert lm.score(["_"]) == from_text(both, ["a", " "], space="_").score([" "])
    assert lm.score(["_"]) != from_text(both, ["a", " "], space="<space>").score([" "])


def test_ngram_units_in_nfc():
    model = BackoffModel(
        1, {("<s>",): (-99, 0), ("e\u0301",): (-1, 0), ("u\u0308",): (-2, 0), ("ü",): (-3, 0)}
    )
    lm = from_text(model.arpa(), Charset("éü"))
    assert lm.score("é", eos=False) == close(-1 * LN10)
    assert lm.score("e\u0301", eos=False) == close(-1 * LN10)
    assert lm.score("ü", eos=False) == close(-3 * LN10)  # the identical unit takes precedence
    assert from_text(model.arpa(), ["e\u0301"]).score(["é"], eos=False) == close(-1 * LN10)


def test_ngram_markers_as_tokens_are_unknown():
    """Some networks have classes of these names; as a token, <s> would restart the text."""
    model = character_model()
    lm = from_text(model.arpa(), ["<pad>", "<s>", "</s>", "<unk>", "t", "h"])
    unknown = lm.score(["<unk>"], eos=False)
    assert lm.score(["<s>"], eos=False) == lm.score(["</s>"], eos=False) == unknown
    assert lm.score(["<pad>"], eos=False) == unknown == close(model.score(["<unk>"], eos=False))
    assert lm.score(["t", "<s>", "t"]) == close(model.score(["t", "<unk>", "t"]))


def test_ngram_over_lexicon():
    lexicon = Lexicon.from_words(["fake", "friend", "of", "unheard"], Charset("abcdefghiklmnoru "))
    model = estimate_model(3, [re.findall(r"\w+", text) for text in SENTENCES])
    lm = from_text(model.arpa(), lexicon)
    assert lm.lexicon is lexicon
    assert (lm.num_symbols, lm.num_classes) == (5, 18)
    for text in ("fake friend of", "of  of\tunheard xyz friend", ""):
        expected = model.score([word if word in ("fake", "friend", "of") else "?" for word in text.split()])
        assert lm.score(text) == lm.score(text.split()) == close(expected)
        assert lm.score([lexicon.get_index(word) for word in text.split()]) == close(expected)
    assert lm.score([4]) == lm.score([3]) == lm.score("xyz")


def test_ngram_score_errors():
    lm = from_text(character_model().arpa(), Charset("abc "))
    with pytest.raises(ValueError, match=r"^score: text\[1\] must be a token, got 'd'$"):
        lm.score("ad")
    with pytest.raises(ValueError, match=r"^score: text\[0\] must be in \[0, 5\), got 5$"):
        lm.score([5])
    with pytest.raises(ValueError, match=r"^score: text\[1\] must be in \[0, 5\), got -1$"):
        lm.score([0, -1])
    with pytest.raises(TypeError, match=r"^score: text must be a sequence of names or symbols, got str$"):
        from_text(character_model().arpa(), ["a", "b"]).score("ab")
    with pytest.raises(TypeError, match="integer"):
        lm.score([1.5])


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ("abc", TypeError, "tokens must be a Charset, a sequence of str or a Lexicon, got str"),
        ({"a"}, TypeError, "tokens must be a Charset, a sequence of str or a Lexicon, got set"),
        (["a", 1], TypeError, "tokens[1] must be a str, got int"),
        (
            ["<unk>", "A", "B"],
            ValueError,
            "tokens must be units of the model, but model.arpa has none of them; its units "
            "are '<unk>', '<s>', 't', 'h', 'e', '<space>', 'f', 'a' and others",
        ),
        (
            Lexicon.from_words(["a", "the", "family"], Charset("aefhilmty ")),
            ValueError,
            "tokens must be characters for a model over characters; most have several characters and are not "
            "units of model.arpa: 'a', 'the', 'family'",
        ),
        (
            ["<s>", "e", "th", "he", "in", " "],
            ValueError,
            "tokens must be characters for a model over characters; most have several characters and are not "
            "units of model.arpa: 'e', 'th', 'he', 'in', ' '",
        ),
    ],
)
def test_ngram_from_arpa_token_errors(tokens, error, message):
    with pytest.raises(error) as caught:
        from_text(character_model().arpa(), tokens)
    assert re.sub(r"/\S*/", "", str(caught.value)) == f"from_arpa: {message}"


def word_model():
    return estimate_model(2, [re.findall(r"\w+", text) for text in SENTENCES])


@pytest.mark.parametrize(
    "tokens",
    [Charset("abc "), Charset("a"), ["a", "th", "he", " "], [*Charset.from_labels(SENTENCES).characters]],
)
def test_ngram_word_model_requires_lexicon(tokens):
    """The word "a" does not make it a model over characters."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - all of the message is compared
        from_text(word_model().arpa(), tokens)
    assert re.sub(r"/\S*/", "", str(caught.value)) == (
        "from_arpa: tokens must be a Lexicon for a model over words; most units of model.arpa have several "
        "characters and are not tokens: 'the', 'fake', 'friend', 'of', 'family', 'like', 'a', 'beam' and "
        "others"
    )


def test_ngram_unit_kind_heuristics():
    # Words of one character are words.
    lexicon = Lexicon.from_words(["a"], Charset("a "))
    assert from_text(word_model().arpa(), lexicon).score("a") == close(word_model().score(["a"]))
    # The model lacks most words of this lexicon.
    lexicon = Lexicon.from_words(["unheard", "of", "unseen"], Charset("adefhnorsu "))
    assert from_text(word_model().arpa(), lexicon).score("of") == close(word_model().score(["of"]))
    # Most tokens are single characters, but most units of the model are not.
    pieces = estimate_model(2, [["th", "e", "re"], ["th", "a"], ["re"], ["he"]])
    tokens = ["a", "e", "i", "o", "u", "th", "re", "he"]
    assert from_text(pieces.arpa(), tokens).score(["th", "e"]) == close(pieces.score(["th", "e"]))
    # Most tokens are longer, but most units of the model are single characters.
    pieces = estimate_model(2, [["a", "e", "i", "o"], ["th", "re", "he"]])
    tokens = ["a", "e", "th", "re", "he"]
    assert from_text(pieces.arpa(), tokens).score(["th", "e"]) == close(pieces.score(["th", "e"]))


def test_ngram_blank():
    charset = Charset("th", blank=2)
    assert from_text(character_model().arpa(), charset).blank == 2
    assert from_text(character_model().arpa(), ["t", "h"]).blank is None
    assert from_text(word_model().arpa(), Lexicon.from_words(["a"], Charset("a", blank=1))).blank == 1


def score_in_another_process(model, text, results):
    results.put(model.score(text))


def test_ngram_pickle():
    charset = Charset.from_labels(SENTENCES)
    lm = from_text(character_model().arpa(), charset)
    lm.automaton.to(torch.device("meta"))
    copied = pickle.loads(pickle.dumps(lm))
    assert copied.score(SENTENCES[0]) == lm.score(SENTENCES[0])
    assert len(pickle.dumps(copied)) == len(pickle.dumps(from_text(character_model().arpa(), charset)))

    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=score_in_another_process, args=(lm, SENTENCES[0], results))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert results.get() == lm.score(SENTENCES[0])


def test_automaton_device_copy_is_cached():
    automaton = from_text(character_model().arpa(), Charset("abc ")).automaton
    assert automaton.to(torch.device("cpu")) is automaton
    copy = automaton.to(torch.device("meta"))
    assert automaton.to(torch.device("meta")) is copy
    assert copy.start == automaton.start
    for name in ("first_edge", "edge_symbol", "edge_target", "edge_weight"):
        table, original = getattr(copy, name), getattr(automaton, name)
        assert (table.device.type, table.shape, table.dtype) == ("meta", original.shape, original.dtype)


def test_ngram_repr():
    lm = from_text(character_model().arpa(), Charset("th"))
    assert re.fullmatch(r"NGramModel\(order=4, 3 tokens, \d+ states\)", repr(lm))
