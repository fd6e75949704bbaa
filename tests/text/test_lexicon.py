"""Lexicons: allowed texts and their scores, construction, errors."""

import math
import pickle
import re

import numpy as np
import pytest
import torch
from helpers.results import raises_exactly
from hypothesis import example, given
from hypothesis import strategies as st
from reference.automaton import assert_valid_edges, lexicon_score

from crnn_ext import _text
from crnn_ext.text import Charset, Lexicon

CHARSET = Charset("abc -", blank=2)
words_of_letters = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8)


def encoded(text):
    return CHARSET.encode(text)[0].tolist()


def assert_valid(lexicon):
    trie = lexicon.trie
    assert_valid_edges(trie, lexicon.num_classes)
    assert trie.word_of_state.dtype == torch.int32
    assert len(trie.word_of_state) == len(trie.first_edge) - 1
    assert trie.word_of_state[0] == -1
    assert ((trie.word_of_state >= -1) & (trie.word_of_state < len(lexicon))).all()
    # Only the separators of the root lead to the root.
    source = torch.arange(len(trie.word_of_state)).repeat_interleave(trie.first_edge.diff())
    to_root = trie.edge_target == 0
    assert (source[to_root] == 0).all()
    assert trie.edge_symbol[to_root].tolist() == [*lexicon.separators]


@given(
    words=words_of_letters, text=st.text("abc -", max_size=12), separators=st.sampled_from([" ", " -", ""])
)
def test_lexicon_scores_of_texts(words, text, separators):
    unknown_score = 0.25
    strict = Lexicon.from_words(words, CHARSET, separators=separators)
    lenient = Lexicon.from_words(words, CHARSET, separators=separators, unknown_score=unknown_score)
    assert_valid(strict)
    found = (
        [word for word in re.split(f"[{separators}]", text) if word] if separators else [text] * bool(text)
    )
    known = [word in words for word in found]

    score, indices = lexicon_score(strict, encoded(text), word_score=2.0)
    assert score == (2.0 * len(found) if all(known) else -math.inf)
    score, indices = lexicon_score(lenient, encoded(text), word_score=2.0)
    assert score == 2.0 * sum(known) + unknown_score * (len(found) - sum(known))
    assert indices == [lenient.get_index(word) for word in found]
    assert [index < len(lenient) for index in indices] == known


@given(words=words_of_letters)
def test_lexicon_contains_words(words):
    lexicon = Lexicon.from_words(words, CHARSET)
    distinct = list(dict.fromkeys(words))
    assert lexicon.words == tuple(distinct)
    assert len(lexicon) == len(distinct)
    assert all(word in lexicon for word in words)
    assert [lexicon.get_index(word) for word in distinct] == list(range(len(distinct)))
    assert "abcabc" not in lexicon
    assert lexicon.get_index("abcabc") == len(lexicon)
    assert None not in lexicon
    # One state for each prefix, and the root.
    assert len(lexicon.trie.word_of_state) == len(
        {word[:n] for word in words for n in range(len(word) + 1)} | {""}
    )


def test_lexicon_words_in_nfc():
    lexicon = Lexicon.from_words(["e\u0301", "é", "a"], Charset("éa"))
    assert lexicon.words == ("é", "a")
    assert "e\u0301" in lexicon
    assert lexicon.get_index("e\u0301") == 0


def test_lexicon_properties():
    lexicon = Lexicon.from_words(["ab"], CHARSET, separators="- ", unknown_score=-2)
    assert (lexicon.num_classes, lexicon.separators, lexicon.unknown_score) == (6, (4, 5), -2.0)
    assert lexicon.blank == 2
    assert Lexicon.from_words(["ab"], CHARSET).unknown_score is None
    assert repr(lexicon) == "Lexicon(1 words, num_classes=6, unknown_score=-2.0)"
    # In a charset without the separators, every text is one word.
    assert Lexicon.from_words(["ab"], Charset("ab")).separators == ()
    assert lexicon_score(lexicon, []) == (0.0, [])


def test_lexicon_unknown_characters():
    message = (
        "from_words: words must consist of characters of the charset, but 2 of 3 do not, such as 'naïve'; "
        "the charset lacks 'x' (U+0078), 'n' (U+006E), 'ï' (U+00EF), 'v' (U+0076), 'e' (U+0065)"
    )
    with raises_exactly(ValueError, message):
        Lexicon.from_words(["naïve", "ab", "xxa"], CHARSET)
    with pytest.raises(ValueError, match=r"'i' \(U\+0069\) and others$"):
        Lexicon.from_words(["abcdefghijklmnop"], Charset("a"), unknown_characters="error")
    lexicon = Lexicon.from_words(["naïve", "ab", "xxa", "c"], CHARSET, unknown_characters="skip")
    assert lexicon.words == ("ab", "c")
    assert lexicon_score(lexicon, encoded("c ab")) == (0.0, [1, 0])
    with raises_exactly(ValueError, message.replace("2 of 3", "2 of 2")):
        Lexicon.from_words(["naïve", "xxa"], CHARSET, unknown_characters="skip")


@pytest.mark.parametrize(
    ("words", "options", "error", "message"),
    [
        ("abc", {}, TypeError, "words must be an iterable of str, got str"),
        (7, {}, TypeError, "words must be an iterable of str, got int"),
        ({"a": ["a"]}, {}, TypeError, "words must be an iterable of str, got dict"),
        ([], {}, ValueError, "words must not be empty"),
        (iter([]), {"unknown_score": 0}, ValueError, "words must not be empty"),
        (["a", b"b"], {}, TypeError, "words[1] must be a str, got bytes"),
        (["a", ""], {}, ValueError, "words[1] must not be empty"),
        (["a", "a b"], {}, ValueError, "words must not contain separators (' '), got 'a b'"),
        (
            ["c", "ab-"],
            {"separators": " -"},
            ValueError,
            "words must not contain separators (' -'), got 'ab-'",
        ),
        (["a"], {"separators": None}, TypeError, "separators must be a str, got NoneType"),
        (
            ["a"],
            {"unknown_characters": "count"},
            ValueError,
            "unknown_characters must be one of 'error', 'skip', got 'count'",
        ),
        (["a"], {"unknown_score": "1"}, TypeError, "unknown_score must be a number or None, got str"),
        (["a"], {"unknown_score": True}, TypeError, "unknown_score must be a number, got bool"),
        (["a"], {"unknown_score": math.nan}, ValueError, "unknown_score must be finite, got nan"),
        (["a"], {"unknown_score": -math.inf}, ValueError, "unknown_score must be finite, got -inf"),
    ],
)
def test_lexicon_from_words_errors(words, options, error, message):
    with raises_exactly(error, f"from_words: {message}"):
        Lexicon.from_words(words, CHARSET, **options)


def test_lexicon_charset_type_error():
    with raises_exactly(TypeError, "from_words: charset must be a Charset, got str"):
        Lexicon.from_words(["a"], "abc")


TOKENS = ["<blank>", "T", "UW", "AO", "|", "<sil>"]


def test_lexicon_from_spellings():
    """Phonemes: two spellings of one word, words with equal spellings, separators at the end."""
    lexicon = Lexicon.from_spellings(
        {"two": [["T", "UW"]], "too": [["T", "UW", "|"]], "to": [("T", "AO"), ["T"]]},
        TOKENS,
        separators=["|", "<sil>"],
        unknown_score=-1.0,
    )
    assert_valid(lexicon)
    assert lexicon.words == ("two", "too", "to")
    assert (lexicon.num_classes, lexicon.separators, lexicon.blank) == (6, (4, 5), None)
    assert lexicon_score(lexicon, [1, 2, 4, 1, 3, 5, 4, 1]) == (0.0, [0, 2, 2])
    assert lexicon_score(lexicon, [2, 4]) == (-1.0, [3])


@pytest.mark.parametrize(
    ("spellings", "tokens", "separators", "error", "message"),
    [
        ([("a", ["T"])], TOKENS, [], TypeError, "spellings must be a mapping, got list"),
        ({}, ["a", "b", "a"], [], ValueError, "tokens must be distinct, got 'a' twice"),
        ({}, TOKENS, [], ValueError, "spellings must not be empty"),
        (
            {"b": [["T"]], "a": []},
            TOKENS,
            [],
            ValueError,
            "each word must have at least one spelling, got none for 'a'",
        ),
        ({}, TOKENS, [" "], ValueError, "separators must be among tokens, got ' '"),
        (
            {"a": ["T"]},
            TOKENS,
            [],
            TypeError,
            "spellings must be sequences of tokens, got str for 'a'",
        ),
        ({"a": [["X"]]}, TOKENS, [], ValueError, "spellings must consist of tokens, got 'X' in that of 'a'"),
        (
            {"a": [["T", "|", "UW"]]},
            TOKENS,
            ["|"],
            ValueError,
            "spellings may have separators only at the end, got '|' in that of 'a'",
        ),
        (
            {"a": [["T"], ["|"]]},
            TOKENS,
            ["|"],
            ValueError,
            "spellings must not be empty, got an empty one for 'a'",
        ),
        (
            {"é": [["T"]], "e\u0301": [["UW"]]},
            TOKENS,
            [],
            ValueError,
            "words must be distinct in NFC, got 'e\u0301' twice",
        ),
    ],
)
def test_lexicon_from_spellings_errors(spellings, tokens, separators, error, message):
    with raises_exactly(error, f"from_spellings: {message}"):
        Lexicon.from_spellings(spellings, tokens, separators=separators)


def test_lexicon_many_words():
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(word) for word in letters[generator.integers(26, size=(500_000, 9))]]
    charset = Charset.from_labels("abcdefghijklmnopqrstuvwxyz ")
    lexicon = Lexicon.from_words(words, charset)
    assert_valid(lexicon)
    assert len(lexicon) == len(set(words))
    for word in (*words[:20], "a"):
        score, indices = lexicon_score(lexicon, charset.encode(word)[0].tolist())
        assert (score == 0.0) == (word in lexicon)
        assert indices == [lexicon.get_index(word)]


def test_lexicon_pickle():
    lexicon = Lexicon.from_words(["ab", "c"], CHARSET, unknown_score=-3.0)
    copied = pickle.loads(pickle.dumps(lexicon))
    assert (copied.words, copied.separators, copied.unknown_score) == (("ab", "c"), (4,), -3.0)
    assert copied.blank == 2
    assert lexicon_score(copied, encoded("c ab")) == lexicon_score(lexicon, encoded("c ab"))


@given(words=words_of_letters, text=st.text("abc -", max_size=5))
@example(words=["a"], text=" a")
def test_lexicon_word_of_spelling(words, text):
    lexicon = Lexicon.from_words(words, CHARSET)
    assert lexicon.get_word(encoded(text)) == (text if text in words else None)
    for word in words:
        assert lexicon.get_word(encoded(word)) == word


def test_lexicon_native_arguments():
    def word_trie(tokens, lengths, words):
        return _text.word_trie(*(np.array(part, np.int64) for part in (tokens, lengths, words)), [])

    for tokens, lengths, words in (([1], [2], [0]), ([1], [-1], [0]), ([-1], [1], [0]), ([2**40], [1], [0])):
        with pytest.raises(IndexError):
            word_trie(tokens, lengths, words)
    with raises_exactly(IndexError, "words and lengths differ in size"):
        word_trie([1], [1], [0, 1])
