"""benchmarks/ngram.py: compared with the definition, by hand and by brute force; probabilities sum to 1."""

import math
import re
import sys

import ngram
import numpy as np
import pytest
from helpers.dataset_files import write_labels_dataset
from hypothesis import example, given
from hypothesis import strategies as st

from crnn_ext.text import Charset, NGramModel

LETTERS = "ab _"
TEXTS = st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=8)


def model_of(folder, texts, order):
    """A model over the characters of the texts and `?`, an unseen character that stands for <unk>."""
    path = folder / "characters.arpa"
    path.write_text(ngram.character_arpa(texts, order))
    characters = "".join(alphabet(texts)) + "?"
    return NGramModel.from_arpa(path, Charset(characters), space="<space>" if " " in characters else None)


def alphabet(texts):
    return sorted(set("".join(texts)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def probabilities(model, history, units):
    """The probability of each unit after the history, and then of the end."""
    before = model.score(history, eos=False)
    after = [model.score(history + unit, eos=False) for unit in units]
    return [math.exp(score - before) for score in [*after, model.score(history)]]


def test_by_hand(tmp_path):
    """<s>a occurs twice; ab, a</s> and b</s> once. One unit precedes a and b, two units precede </s>."""
    model = model_of(tmp_path, ["ab", "a"], 2)
    rest = 0.5 * 3 / 4 / 4  # D n / c for each of a, b, </s>, <unk>; D = 2 / (2 + 2 * 1)
    a, b, end = 0.5 / 4 + rest, 0.5 / 4 + rest, 1.5 / 4 + rest
    assert probabilities(model, "", "ab?") == pytest.approx(  # D = 3 / (3 + 2 * 1)
        [1.4 / 2 + 0.3 * a, 0.3 * b, 0.3 * rest, 0.3 * end], rel=1e-5
    )
    assert probabilities(model, "a", "ab?") == pytest.approx(
        [0.6 * a, 0.4 / 2 + 0.6 * b, 0.6 * rest, 0.4 / 2 + 0.6 * end], rel=1e-5
    )
    assert probabilities(model, "b", "ab?") == pytest.approx(
        [0.6 * a, 0.6 * b, 0.6 * rest, 0.4 + 0.6 * end], rel=1e-5
    )
    assert probabilities(model, "?", "ab?") == pytest.approx([a, b, rest, end], rel=1e-5)


def defined(texts, order, context, unit):
    """Returns P(unit | context) by the formula, from lists in which each n-gram occurs c times."""
    lines = [["<s>", *text, "</s>"] for text in texts]
    length = len(context) + 1

    def occurring(length):
        return [tuple(line[i : i + length]) for line in lines for i in range(len(line) - length + 1)]

    ngrams = occurring(length)
    if length < order:
        at_the_start = [ngram for ngram in ngrams if ngram[0] == "<s>" and length > 1]
        ngrams = [*at_the_start, *(ngram[1:] for ngram in set(occurring(length + 1)))]
    ngrams = [ngram for ngram in ngrams if ngram != ("<s>",)]
    times = [ngrams.count(ngram) for ngram in set(ngrams)]
    once, twice = times.count(1), times.count(2)
    discount = once / (once + 2 * twice) if once else 0.5

    vocabulary = {unit for line in lines for unit in line[1:]}
    shorter = defined(texts, order, context[1:], unit) if context else 1 / (len(vocabulary) + 1)
    units = [ngram[-1] for ngram in ngrams if ngram[:-1] == context]
    if not units:
        return shorter
    own = max(units.count(unit) - discount, 0)
    return (own + discount * len(set(units)) * shorter) / len(units)


@given(texts=TEXTS, order=st.integers(1, 5), history=st.text(LETTERS + "?", max_size=7))
@example(texts=["aa", "aa"], order=3, history="a")  # no count is 1
def test_by_brute_force(folder, texts, order, history):
    model = model_of(folder, texts, order)
    known = alphabet(texts)
    history = [unit if unit in known else "?" for unit in history]
    context = ("<s>", *history)[1 - order :] if order > 1 else ()
    expected = [defined(texts, order, context, unit) for unit in [*known, "?", "</s>"]]
    assert probabilities(model, "".join(history), [*known, "?"]) == pytest.approx(expected, rel=1e-5)


@given(texts=TEXTS, order=st.integers(1, 6), history=st.text(LETTERS + "?", max_size=8))
def test_probabilities_sum_to_1(folder, texts, order, history):
    model = model_of(folder, texts, order)
    assert model.order == order
    units = [*alphabet(texts), "?"]
    history = "".join(unit for unit in history if unit in units)
    assert sum(probabilities(model, history, units)) == pytest.approx(1, abs=1e-5)


def test_longer_contexts_help(folder):
    """The previous two characters determine each character of these texts."""
    texts = ["aabaab" * 3, "abaaba" * 3, "baabaa" * 3] * 5
    one, two, three = (model_of(folder, texts, order).score("aabaabaabaab") for order in (1, 2, 3))
    assert one < two < three


def test_kenlm_reads_it(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("abcdefgh "), 12)) for _ in range(50)]
    ours = model_of(tmp_path, texts, 4)
    theirs = kenlm.Model(str(tmp_path / "characters.arpa"))
    for text in ("abc def", "hhhh a", "a?b"):
        units = " ".join("<space>" if unit == " " else unit for unit in text)
        assert theirs.score(units) * math.log(10) == pytest.approx(ours.score(text), rel=1e-5)


def test_an_order_above_the_length_of_all_texts(folder):
    model = model_of(folder, ["a"], 6)
    assert model.order == 6
    assert sum(probabilities(model, "a", ["a", "?"])) == pytest.approx(1, abs=1e-5)


def test_composed(folder):
    text = "mu\u0308de"
    assert ngram.character_arpa([text], 2) == ngram.character_arpa(["m\u00fcde"], 2)


def test_command(tmp_path, monkeypatch, capsys):
    labels = write_labels_dataset(tmp_path / "lines", {"1.png": "ab a", "2.png": "b"})
    path = tmp_path / "out.arpa"
    monkeypatch.setattr(sys, "argv", ["ngram.py", str(labels), str(path), "--order", "3"])
    assert ngram.main() == 0
    assert path.read_text() == ngram.character_arpa(["ab a", "b"], 3)
    assert capsys.readouterr().out == f"{path}: order 3, from 2 lines\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "out.arpa"], "none: "),
        (["lines", "none/out.arpa"], "none/out.arpa"),
        (["lines", "out.arpa", "--order", "0"], "--order must be at least 1, got 0"),
    ],
)
def test_command_errors(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_labels_dataset(tmp_path / "lines", {"1.png": "ab"})
    monkeypatch.setattr(sys, "argv", ["ngram.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        ngram.main()
    assert re.search(message, capsys.readouterr().err)
