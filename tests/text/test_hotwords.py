"""Hot words: the weights of texts and of their prefixes, against a search by regular expressions."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference.automaton import assert_valid, prefix_weights

from crnn_ext import _text
from crnn_ext.text import Charset, HotWords

CHARSET = Charset("abc -", blank=3)


def normalized(text, separators):
    """The text with "_" for every separator."""
    return "".join("_" if character in separators else character for character in text)


def pattern(word, separators):
    return f"_{normalized(word, separators)}_" if separators else word


def num_letters(pattern):
    return len(pattern.replace("_", ""))


def complete_matches(patterns, text):
    """The number of letters in all occurrences, including overlapping ones."""
    return sum(num_letters(part) * len(re.findall(f"(?={re.escape(part)})", text)) for part in patterns)


def partial_match(patterns, text):
    """The number of letters in the longest suffix of the text that is a proper prefix of a pattern."""
    prefixes = [part[:n] for part in patterns for n in range(len(part))]
    return num_letters(max((part for part in prefixes if text.endswith(part)), key=len, default=""))


@st.composite
def cases(draw):
    """(hot words, a text in which they are frequent, separators)."""
    separators = draw(st.sampled_from([" ", " -", "-", ""]))
    word = st.text("ab", min_size=1, max_size=4)
    phrase = st.lists(word, min_size=1, max_size=3).map((separators[:1] or "a").join)
    words = draw(st.lists(phrase, max_size=6))
    piece = st.one_of(st.sampled_from([*words, " ", "-"]), st.text("abc -", max_size=3))
    return words, draw(st.lists(piece, max_size=8).map("".join)), separators


@given(case=cases())
@example(case=(["ab", "b", "ab b", "a"], "ab b ab-b", " -"))
@example(case=(["aa", "aaa"], "aaaa", ""))
def test_hotwords_weights_of_texts(case):
    """Overlapping words, words that are prefixes or suffixes of others, and phrases; for every prefix too."""
    words, text, separators = case
    hotwords = HotWords.from_words(words, CHARSET, separators=separators)
    assert_valid(hotwords.automaton, CHARSET.num_classes)
    distinct = list(dict.fromkeys(words))
    assert (hotwords.words, len(hotwords), hotwords.num_classes) == (tuple(distinct), len(distinct), 6)

    patterns = [pattern(word, separators) for word in distinct]
    around = "_" if separators else ""
    padded = around + normalized(text, separators)
    weights, final = prefix_weights(hotwords.automaton, CHARSET.encode(text)[0].tolist())
    assert weights[-1] + final == complete_matches(patterns, padded + around)
    for n, weight in enumerate(weights, start=len(around)):
        prefix = padded[:n]
        assert weight == complete_matches(patterns, prefix) + partial_match(patterns, prefix)


def test_hotwords_documented_example():
    charset = Charset.from_labels("new york city")
    hotwords = HotWords.from_words(["new york", "york"], charset)

    def weights(text):
        prefixes, final = prefix_weights(hotwords.automaton, charset.encode(text)[0].tolist())
        return prefixes, prefixes[-1] + final

    assert weights("new york") == ([0, 1, 2, 3, 3, 4, 5, 6, 7], 11)
    assert weights("new yor") == ([0, 1, 2, 3, 3, 4, 5, 6], 0)
    assert weights("yorkcity") == ([0, 1, 2, 3, 4, 0, 0, 0, 0], 0)
    assert weights("york city")[1] == 4
    assert weights("") == ([0], 0)


def test_hotwords_phrases_match_any_separator():
    hotwords = HotWords.from_words(["a-b"], CHARSET, separators=" -")
    for text, expected in (("a b", 2), ("a-b", 2), ("-a-b c", 2), ("a  b", 0), ("a bc", 0)):
        weights, final = prefix_weights(hotwords.automaton, CHARSET.encode(text)[0].tolist())
        assert weights[-1] + final == expected


def test_hotwords_without_separators():
    """Scripts without spaces: hot words match anywhere."""
    charset = Charset("人工智能")
    hotwords = HotWords.from_words(["智能", "人工智能"], charset)
    weights, final = prefix_weights(hotwords.automaton, charset.encode("人工智能")[0].tolist())
    assert weights == [0, 1, 2, 3, 6]
    assert final == 0


def test_hotwords_table_size():
    few = HotWords.from_words(["abc", "ab"], Charset("abc "))
    many = HotWords.from_words(["abc", "ab"], Charset([*"abc ", *map(chr, range(0x4E00, 0x5E00))]))
    assert len(many.automaton.edge_symbol) == len(few.automaton.edge_symbol)
    assert len(many.automaton.fail_state) == len(few.automaton.fail_state)


def test_hotwords_many_words():
    generator = np.random.default_rng(0)
    alphabet = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(word) for word in alphabet[generator.integers(26, size=(10_000, 12))]]
    charset = Charset("abcdefghijklmnopqrstuvwxyz ")
    hotwords = HotWords.from_words([*words, "a" * 10_000], charset)
    assert_valid(hotwords.automaton, charset.num_classes)
    text = f"{words[3]} {words[5]} x{words[7]} {'a' * 9_999}"
    weights, final = prefix_weights(hotwords.automaton, charset.encode(text)[0].tolist())
    assert weights[-1] == 24 + 9_999
    assert weights[-1] + final == 24


@pytest.mark.parametrize(
    ("words", "separators", "error", "message"),
    [
        ("abc", " ", TypeError, "words must be an iterable of str, got str"),
        ({"a": ["a"]}, " ", TypeError, "words must be an iterable of str, got dict"),
        (["a", 1], " ", TypeError, "words[1] must be a str, got int"),
        ([""], " ", ValueError, "words[0] must not be empty"),
        (["a"], 0, TypeError, "separators must be a str, got int"),
        (
            ["abc", "abd"],
            " ",
            ValueError,
            "words must consist of characters of the charset, but 1 of 2 do not, such as 'abd'; the charset "
            "lacks 'd' (U+0064)",
        ),
        *(
            (
                ["b", word, "a"],
                " -",
                ValueError,
                f"phrases must have single separators (' -') between words, got {word!r}",
            )
            for word in (" a", "a-", "a- b", "-", " ")
        ),
    ],
)
def test_hotwords_errors(words, separators, error, message):
    with pytest.raises(error, match=f"^from_words: {re.escape(message)}$"):
        HotWords.from_words(words, CHARSET, separators=separators)


def test_hotwords_pickle():
    hotwords = HotWords.from_words(["ab", "c ab"], CHARSET)
    copied = pickle.loads(pickle.dumps(hotwords))
    assert (copied.words, copied.blank) == (("ab", "c ab"), CHARSET.blank)
    text = CHARSET.encode("c ab c")[0].tolist()
    assert prefix_weights(copied.automaton, text) == prefix_weights(hotwords.automaton, text)
    assert repr(copied) == "HotWords(2 words, num_classes=6)"


def test_hotwords_native_arguments():
    for words, lengths in (([1], [2]), ([1], [-1]), ([-1], [1]), ([2**40], [1])):
        with pytest.raises(IndexError):
            _text.hotword_automaton(np.array(words, np.int64), np.array(lengths, np.int64), [])
