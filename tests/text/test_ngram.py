"""n-gram models: scores against KenLM and against back-off by its definition, units, spaces, copies."""

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
texts = st.lists(st.sampled_from("abcdxy"), max_size=8)  # x and y are in no model


def from_text(text, *arguments, **options):
    """The model in an ARPA file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.arpa")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return NGramModel.from_arpa(path, *arguments, **options)


def kenlm_scorer(path):
    """KenLM's scores of sequences of words, in nats."""
    kenlm = pytest.importorskip("kenlm", reason="the package kenlm is not installed")
    config = kenlm.Config()
    config.show_progress = False
    model = kenlm.Model(str(path), config)

    def score(words, bos=True, eos=True):
        # KenLM's own sum is in float32.
        return LN10 * sum(log10_prob for log10_prob, *_ in model.full_scores(" ".join(words), bos, eos))

    return score


def close(value):
    return pytest.approx(value, rel=0, abs=1e-4)


@given(model=backoff_models(), text=texts, bos=st.booleans(), eos=st.booleans())
def test_scores_are_those_of_back_off(model, text, bos, eos):
    ours = from_text(model.arpa(), list("abcdxy"))
    assert_valid(ours.automaton, num_symbols=6)
    assert (ours.order, ours.num_symbols, ours.num_classes, ours.lexicon) == (model.order, 6, 6, None)
    assert ours.score(text, bos=bos, eos=eos) == close(model.score(text, bos, eos))

    symbols = ["abcdxy".index(name) for name in text]
    weights, final = prefix_weights(ours.automaton, symbols, start=None if bos else 0)
    assert weights == [close(model.score(text[:n], bos, eos=False)) for n in range(len(text) + 1)]
    assert weights[-1] + final == close(model.score(text, bos, eos=True))


@given(
    model=backoff_models(for_kenlm=True),
    sentences=st.lists(texts, min_size=1),
    bos=st.booleans(),
    eos=st.booleans(),
)
def test_scores_are_those_of_kenlm(model, sentences, bos, eos):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.arpa")
        path.write_text(model.arpa())
        theirs = kenlm_scorer(path)
        ours = NGramModel.from_arpa(path, list("abcdxy"))
    for text in sentences:
        assert ours.score(text, bos=bos, eos=eos) == close(theirs(text, bos, eos))


@pytest.mark.skipif(not PARLANCE.is_file(), reason="../shared/data is not there")
def test_a_real_word_model_scores_as_in_kenlm():
    theirs = kenlm_scorer(PARLANCE)
    unigrams = PARLANCE.read_text().split("\\2-grams:")[0].splitlines()
    words = [line.split("\t")[1] for line in unigrams if "\t" in line]
    lexicon = Lexicon.from_words(
        [word for word in words if word.isalpha()], Charset.from_labels(["abcdefghijklmnopqrstuvwxyz "])
    )
    ours = NGramModel.from_arpa(PARLANCE, lexicon)
    assert ours.order == 5
    assert ours.lexicon is lexicon
    assert (ours.num_symbols, ours.num_classes) == (len(lexicon) + 1, 28)
    assert_valid(ours.automaton, ours.num_symbols)
    generator = random.Random(0)
    for _ in range(200):
        sentence = generator.choices([*lexicon.words, "unheard"], k=generator.randrange(10))
        assert ours.score(sentence) == close(theirs(sentence))
    everyday = "looking on a little more loin also would consider higher to look good"
    assert ours.score(everyday) == close(theirs(everyday.split()))


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
def test_a_character_model_scores_as_in_kenlm(tmp_path, blank):
    path = tmp_path / "characters.arpa"
    path.write_text(character_model().arpa())
    theirs = kenlm_scorer(path)
    charset = Charset("abcdefghijklmnopqrstuvwxyz ,.!", blank)
    ours = NGramModel.from_arpa(path, charset)
    assert (ours.order, ours.num_symbols, ours.num_classes, ours.lexicon) == (4, 31, 31, None)
    assert_valid(ours.automaton, 31)
    for text in (*SENTENCES, "the hat of the friend", "xylophone! of the", "a", ""):
        assert ours.score(text) == close(theirs(units(text)))
        assert ours.score(charset.encode(text)[0].tolist()) == ours.score(text)
        weights, final = prefix_weights(ours.automaton, charset.encode(text)[0].tolist())
        assert weights[-1] + final == close(ours.score(text))


@given(context=st.text("abdefhint ,", max_size=5))
def test_probabilities_add_up_to_one(context):
    model = character_model()
    charset = Charset.from_labels(SENTENCES)
    ours = from_text(model.arpa(), charset)
    before = ours.score(context, eos=False)
    following = [ours.score(context + character, eos=False) for character in charset.characters]
    unknown = ours.score([*charset.encode(context)[0].tolist(), charset.blank], eos=False)
    total = sum(math.exp(score - before) for score in [*following, unknown, ours.score(context)])
    assert total == pytest.approx(1, abs=1e-5)


def test_every_symbol_has_an_edge_from_the_root():
    ours = from_text(character_model().arpa(), Charset("abcé ", blank=2))
    first, last = ours.automaton.first_edge[:2].tolist()
    assert (first, last) == (0, 6)
    assert ours.automaton.edge_symbol[first:last].tolist() == list(range(6))
    assert ours.automaton.fail_state[0] == 0


def test_states_are_the_contexts_of_what_the_symbols_can_spell():
    """The tables grow with the part of the model that the tokens reach."""
    model = character_model().arpa()
    everything = from_text(model, Charset.from_labels(SENTENCES)).automaton
    little = from_text(model, Charset("the")).automaton
    assert len(little.fail_state) < len(everything.fail_state) / 10
    assert len(little.edge_symbol) < len(everything.edge_symbol) / 10


@pytest.mark.parametrize("name", ["<space>", "\u2581", "|", "_"])
def test_the_space(name):
    model = character_model(space=name).arpa()
    charset = Charset.from_labels(SENTENCES)
    expected = from_text(character_model().arpa(), charset).score(SENTENCES[0])
    assert from_text(model, charset).score(SENTENCES[0]) == expected
    assert from_text(model, charset, space=name).score(SENTENCES[0]) == expected
    assert from_text(model, [*charset.characters]).score([*SENTENCES[0]]) == expected
    for separator in ("|", "<sil>"):
        ours = from_text(model, units(charset.characters, separator), separator=separator)
        assert ours.score(units(SENTENCES[0], separator)) == expected
    # As the name of a class it stands for itself.
    assert from_text(model, units(charset.characters, name)).score(units(SENTENCES[0], name)) == expected


def test_the_space_must_be_told_where_it_is_not_clear():
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
    # A unit of the separator's own name comes before the others.
    ours = from_text(both, ["a", "_"], separator="_")
    assert ours.score(["_"]) == from_text(both, ["a", " "], space="_").score([" "])
    assert ours.score(["_"]) != from_text(both, ["a", " "], space="<space>").score([" "])


def test_units_are_matched_in_nfc():
    model = BackoffModel(
        1, {("<s>",): (-99, 0), ("e\u0301",): (-1, 0), ("u\u0308",): (-2, 0), ("ü",): (-3, 0)}
    )
    ours = from_text(model.arpa(), Charset("éü"))
    assert ours.score("é", eos=False) == close(-1 * LN10)
    assert ours.score("e\u0301", eos=False) == close(-1 * LN10)
    assert ours.score("ü", eos=False) == close(-3 * LN10)  # the unit that is written like that
    assert from_text(model.arpa(), ["e\u0301"]).score(["é"], eos=False) == close(-1 * LN10)


def test_markers_are_no_tokens():
    """Some networks have classes of these names; read as a token, <s> would begin the text anew."""
    model = character_model()
    ours = from_text(model.arpa(), ["<pad>", "<s>", "</s>", "<unk>", "t", "h"])
    unknown = ours.score(["<unk>"], eos=False)
    assert ours.score(["<s>"], eos=False) == ours.score(["</s>"], eos=False) == unknown
    assert ours.score(["<pad>"], eos=False) == unknown == close(model.score(["<unk>"], eos=False))
    assert ours.score(["t", "<s>", "t"]) == close(model.score(["t", "<unk>", "t"]))


def test_words_of_a_lexicon():
    lexicon = Lexicon.from_words(["fake", "friend", "of", "unheard"], Charset("abcdefghiklmnoru "))
    model = estimate_model(3, [re.findall(r"\w+", text) for text in SENTENCES])
    ours = from_text(model.arpa(), lexicon)
    assert ours.lexicon is lexicon
    assert (ours.num_symbols, ours.num_classes) == (5, 18)
    for text in ("fake friend of", "of  of\tunheard xyz friend", ""):
        expected = model.score([word if word in ("fake", "friend", "of") else "?" for word in text.split()])
        assert ours.score(text) == ours.score(text.split()) == close(expected)
        assert ours.score([lexicon.get_index(word) for word in text.split()]) == close(expected)
    assert ours.score([4]) == ours.score([3]) == ours.score("xyz")


def test_what_cannot_be_scored():
    ours = from_text(character_model().arpa(), Charset("abc "))
    with pytest.raises(ValueError, match=r"^score: text\[1\] must be a token, got 'd'$"):
        ours.score("ad")
    with pytest.raises(ValueError, match=r"^score: text\[0\] must be in \[0, 5\), got 5$"):
        ours.score([5])
    with pytest.raises(ValueError, match=r"^score: text\[1\] must be in \[0, 5\), got -1$"):
        ours.score([0, -1])
    with pytest.raises(TypeError, match=r"^score: text must be a sequence of names or symbols, got str$"):
        from_text(character_model().arpa(), ["a", "b"]).score("ab")
    with pytest.raises(TypeError, match="integer"):
        ours.score([1.5])


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
def test_tokens_that_are_refused(tokens, error, message):
    with pytest.raises(error) as caught:
        from_text(character_model().arpa(), tokens)
    assert re.sub(r"/\S*/", "", str(caught.value)) == f"from_arpa: {message}"


def word_model():
    return estimate_model(2, [re.findall(r"\w+", text) for text in SENTENCES])


@pytest.mark.parametrize(
    "tokens",
    [Charset("abc "), Charset("a"), ["a", "th", "he", " "], [*Charset.from_labels(SENTENCES).characters]],
)
def test_a_model_over_words_needs_a_lexicon(tokens):
    """That "a" is a word does not make it one over characters."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - all of the message is compared
        from_text(word_model().arpa(), tokens)
    assert re.sub(r"/\S*/", "", str(caught.value)) == (
        "from_arpa: tokens must be a Lexicon for a model over words; most units of model.arpa have several "
        "characters and are not tokens: 'the', 'fake', 'friend', 'of', 'family', 'like', 'a', 'beam' and "
        "others"
    )


def test_kinds_that_only_seem_to_differ():
    # Words of one character are words.
    lexicon = Lexicon.from_words(["a"], Charset("a "))
    assert from_text(word_model().arpa(), lexicon).score("a") == close(word_model().score(["a"]))
    # Most words of this lexicon are unknown to the model.
    lexicon = Lexicon.from_words(["unheard", "of", "unseen"], Charset("adefhnorsu "))
    assert from_text(word_model().arpa(), lexicon).score("of") == close(word_model().score(["of"]))
    # Most pieces of this vocabulary are characters, but the model knows fewer of them.
    pieces = estimate_model(2, [["th", "e", "re"], ["th", "a"], ["re"], ["he"]])
    tokens = ["a", "e", "i", "o", "u", "th", "re", "he"]
    assert from_text(pieces.arpa(), tokens).score(["th", "e"]) == close(pieces.score(["th", "e"]))
    # And the other way round: most pieces are longer, but the model has more characters.
    pieces = estimate_model(2, [["a", "e", "i", "o"], ["th", "re", "he"]])
    tokens = ["a", "e", "th", "re", "he"]
    assert from_text(pieces.arpa(), tokens).score(["th", "e"]) == close(pieces.score(["th", "e"]))


def test_the_blank_that_a_model_is_for():
    charset = Charset("th", blank=2)
    assert from_text(character_model().arpa(), charset).blank == 2
    assert from_text(character_model().arpa(), ["t", "h"]).blank is None
    assert from_text(word_model().arpa(), Lexicon.from_words(["a"], Charset("a", blank=1))).blank == 1


def score_in_another_process(model, text, results):
    results.put(model.score(text))


def test_copies():
    charset = Charset.from_labels(SENTENCES)
    ours = from_text(character_model().arpa(), charset)
    ours.automaton.to(torch.device("meta"))
    again = pickle.loads(pickle.dumps(ours))
    assert again.score(SENTENCES[0]) == ours.score(SENTENCES[0])
    assert len(pickle.dumps(again)) == len(pickle.dumps(from_text(character_model().arpa(), charset)))

    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=score_in_another_process, args=(ours, SENTENCES[0], results))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert results.get() == ours.score(SENTENCES[0])


def test_tables_are_copied_to_a_device_once():
    automaton = from_text(character_model().arpa(), Charset("abc ")).automaton
    assert automaton.to(torch.device("cpu")) is automaton
    copy = automaton.to(torch.device("meta"))
    assert automaton.to(torch.device("meta")) is copy
    assert copy.start == automaton.start
    for name in ("first_edge", "edge_symbol", "edge_target", "edge_weight"):
        table, original = getattr(copy, name), getattr(automaton, name)
        assert (table.device.type, table.shape, table.dtype) == ("meta", original.shape, original.dtype)


def test_repr():
    ours = from_text(character_model().arpa(), Charset("th"))
    assert re.fullmatch(r"NGramModel\(order=4, 3 tokens, \d+ states\)", repr(ours))
