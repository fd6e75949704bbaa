"""Arguments of BeamSearchDecoder, including files of tokens and words, and its errors."""

import math
import re

import pytest
import torch
from helpers.decoder_checks import TOKENS, best_hypothesis
from helpers.results import raises_exactly
from reference.ngram import BackoffModel

from crnn_ext.ctc import BeamSearchDecoder
from crnn_ext.text import Charset, HotWords, Lexicon

INF, NAN = math.inf, math.nan
LEXICON = Lexicon.from_words(["ab"], Charset(" abc"))
HOTWORDS = HotWords.from_words(["ab"], Charset(" abc"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            b"ab a b |\n\ncab\n",
            ", line 3: a line must hold a word and its spelling, got only 'cab'",
        ),
        (b"ab |\n", ", line 1: spellings must not be empty, got an empty one for 'ab'"),
        (b"ab a b\r\n\r\nad a d", ", line 3: spellings must consist of tokens, got 'd' in that of 'ad'"),
        # The blank cannot spell a word.
        (b"a-b a - b", ", line 1: spellings must consist of tokens, got '-' in that of 'a-b'"),
        (
            b"ab a b\nab a | b |",
            ", line 2: spellings may have separators only at the end, got '|' in that of 'ab'",
        ),
        (b" \n\n", ": a lexicon file must hold at least one word"),
        (
            b"ab a b\na\xff a",
            ", line 2: not UTF-8 ('utf-8' codec can't decode byte 0xff in position 1: invalid start byte)",
        ),
    ],
)
def test_lexicon_files_that_are_refused(lines, message, write_file):
    path = write_file(lines)
    with raises_exactly(ValueError, f"{path}{message}"):
        BeamSearchDecoder(TOKENS, lexicon=path)


def test_lexicon_files(write_file):
    """Several spellings of a word; trailing separators, tabs and empty lines; words in NFC."""
    lexicon = write_file("\n  ab\ta b\t|  \n\nde\u0301 a a\ncab c a b | |\r\nd\u00e9 c c\n")
    decoder = BeamSearchDecoder(TOKENS, lexicon=lexicon)
    for spelt, words in [("ab|cab", ["ab", "cab"]), ("aa", ["d\u00e9"]), ("cc|cc", ["d\u00e9"] * 2)]:
        assert best_hypothesis(decoder, spelt).words == words


def test_other_spaces_may_be_tokens(write_file):
    tokens = ["-", "|", "a", "\u3000", "\u00a0"]
    decoder = BeamSearchDecoder(
        write_file("\n".join(tokens)), lexicon=write_file("a\u3000 a \u3000 |\na\u00a0a a \u00a0 a")
    )
    assert best_hypothesis(decoder, "a\u3000|a\u00a0a", tokens=tokens).words == ["a\u3000", "a\u00a0a"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"-\na b\n", "line 2: a line must hold one token, got 'a b'"),
        (b"-\na\nb \n", "line 3: a line must hold one token, got 'b '"),
        (b"-\n\t\n", "line 2: a line must hold one token, got '\\t'"),
        (
            b"-\n\xe9",
            "line 2: not UTF-8 ('utf-8' codec can't decode byte 0xe9 in position 0: unexpected end of data)",
        ),
    ],
)
def test_token_files_that_are_refused(lines, message, write_file):
    path = write_file(lines)
    with raises_exactly(ValueError, f"{path}, {message}"):
        BeamSearchDecoder(path)


@pytest.mark.parametrize(
    ("tokens", "options", "error", "message"),
    [
        (["-", "a", 3], {}, TypeError, "tokens[2] must be a str, got int"),
        (["-", "a", "b", "a"], {}, ValueError, "tokens must be distinct, got 'a' twice"),
        (["-", "a", ""], {}, ValueError, "tokens[2] must not be empty: only the blank may be"),
        (["a", "b"], {}, ValueError, "blank_token must be one of the tokens, got '-'"),
        (
            Charset("-a"),
            {"blank_token": "-"},
            ValueError,
            "blank_token must be None for a Charset, got '-'",
        ),
        (
            TOKENS,
            {"sil_token": "x"},
            ValueError,
            "sil_token must be one of the tokens except the blank, got 'x'",
        ),
        (
            TOKENS,
            {"sil_token": "-"},
            ValueError,
            "sil_token must be one of the tokens except the blank, got '-'",
        ),
        (TOKENS, {"nbest": 17}, ValueError, "nbest must be in [1, 16], got 17"),
        (TOKENS, {"beam_size": 2.0}, TypeError, "beam_size must be an int, got float"),
        (
            TOKENS,
            {"beam_size_token": 0},
            ValueError,
            "beam_size_token must be at least 1, got 0",
        ),
        (
            [str(number) for number in range(3000)],
            {"beam_size_token": 1500, "blank_token": "0"},
            ValueError,
            "beam_size_token must be at most 1024, or at least 2999 (all tokens), got 1500",
        ),
        (TOKENS, {"beam_threshold": -1}, ValueError, "beam_threshold must be at least 0, got -1"),
        (TOKENS, {"lm_weight": NAN}, ValueError, "lm_weight must be finite, got nan"),
        (TOKENS, {"word_score": None}, TypeError, "word_score must be a number, got NoneType"),
        (TOKENS, {"hotword_weight": -1.0}, ValueError, "hotword_weight must be at least 0, got -1.0"),
        (TOKENS, {"token_score": INF}, ValueError, "token_score must be finite, got inf"),
        (TOKENS, {"token_min_logp": 0.5}, ValueError, "token_min_logp must be at most 0, got 0.5"),
        (TOKENS, {"rescore": 1}, TypeError, "rescore must be a bool, got int"),
        (
            TOKENS,
            {"input_type": "probs"},
            ValueError,
            "input_type must be one of 'logits', 'log_probs', got 'probs'",
        ),
        (
            TOKENS,
            {"unk_score": -2.0},
            ValueError,
            "unk_score must be -inf unless lexicon is a path, got -2.0",
        ),
        (
            TOKENS,
            {"lexicon": [Lexicon.from_words(["ab"], Charset(" abc"))]},
            TypeError,
            "lexicon must be a Lexicon, a path or None, got list",
        ),
        (
            TOKENS,
            {"lexicon": Lexicon.from_words(["ab"], Charset("abc"))},
            ValueError,
            "lexicon must be for logits with 5 classes, got 4",
        ),
        (
            TOKENS,
            {"lexicon": Lexicon.from_words(["ab"], Charset(" abc", blank=4))},
            ValueError,
            "lexicon must be for a charset with blank 0, got 4",
        ),
        (TOKENS, {"lm": 3}, TypeError, "lm must be an NGramModel or None, got int"),
        (
            TOKENS,
            {"hotwords": "cab"},
            TypeError,
            "hotwords must be HotWords, an iterable of str or None, got str",
        ),
        (TOKENS, {"hotwords": ["a", 3]}, TypeError, "hotwords[1] must be a str, got int"),
        (
            TOKENS,
            {"hotwords": ["a", "b-c"]},
            ValueError,
            "hotwords must consist of tokens except the blank, got '-' in 'b-c'",
        ),
        (
            TOKENS,
            {"hotwords": ["a  b"]},
            ValueError,
            "from_spellings: phrases must have single separators (['|']) between words, got 'a  b'",
        ),
    ],
    ids=str,
)
def test_arguments_that_break_their_rule(tokens, options, error, message):
    with raises_exactly(error, message):
        BeamSearchDecoder(tokens, **options)


@pytest.mark.parametrize("unk_score", [NAN, INF])
def test_unk_score(unk_score, write_file):
    with raises_exactly(ValueError, f"unk_score must be finite, got {unk_score}"):
        BeamSearchDecoder(TOKENS, lexicon=write_file("a a"), unk_score=unk_score)


def test_files_that_are_not_there_or_not_of_their_format(tmp_path, write_file):
    for options in ({"lexicon": tmp_path / "none"}, {"lm": str(tmp_path / "none")}):
        with pytest.raises(FileNotFoundError):
            BeamSearchDecoder(TOKENS, **options)
    with pytest.raises(FileNotFoundError):
        BeamSearchDecoder(tmp_path / "none")
    broken = write_file(BackoffModel(1, {("a",): (-1.0, 0.0)}).arpa().replace("-1.0", "one"))
    with pytest.raises(ValueError, match=re.escape(f"{broken}, line 5")):
        BeamSearchDecoder(TOKENS, lm=broken)


@pytest.mark.parametrize(
    ("emissions", "lengths", "error", "message"),
    [
        ([[[0.0] * 5]], None, TypeError, "emissions must be a tensor, got list"),
        (
            torch.zeros(4, 5),
            None,
            ValueError,
            "emissions must be (N, T, C=5), got shape (4, 5)",
        ),
        (
            torch.zeros(2, 4, 6),
            None,
            ValueError,
            "emissions must be (N, T, C=5), got shape (2, 4, 6)",
        ),
        (
            torch.zeros(2, 4, 5),
            [1, 2, 3],
            ValueError,
            "lengths must have shape (N=2,), got shape (3,)",
        ),
        (
            torch.zeros(2, 4, 5),
            torch.tensor([1.0, 2.0]),
            TypeError,
            "lengths must have an integer dtype, got torch.float32",
        ),
        (
            torch.zeros(2, 4, 5),
            [4, 5],
            ValueError,
            "beam_search: input_lengths[1] is 5, but logits has T=4 frames",
        ),
    ],
    ids=str,
)
def test_emissions_and_lengths_that_break_their_rule(emissions, lengths, error, message):
    with raises_exactly(error, message):
        BeamSearchDecoder(TOKENS)(emissions, lengths)


@pytest.mark.parametrize(
    ("lexicon", "error", "message"),
    [
        ("words.txt", TypeError, "lexicon must be a Lexicon, a sequence of them or None, got str"),
        (LEXICON, TypeError, "lexicon must be a sequence or None, got Lexicon"),
        ([LEXICON, "ab"], TypeError, "lexicon[1] must be a Lexicon or None, got str"),
        ([LEXICON], ValueError, "lexicon must have one element for each of the 2 samples, got 1"),
        (
            [None, Lexicon.from_words(["ab"], Charset("abc"))],
            ValueError,
            "lexicon must be for logits with 5 classes, got 4",
        ),
    ],
    ids=str,
)
def test_lexicons_of_samples_that_break_their_rule(lexicon, error, message):
    with raises_exactly(error, message):
        BeamSearchDecoder(TOKENS)(torch.zeros(2, 4, 5), lexicon=lexicon)


@pytest.mark.parametrize(
    ("hotwords", "error", "message"),
    [
        (HOTWORDS, TypeError, "hotwords must be a sequence or None, got HotWords"),
        ([HOTWORDS, "ab"], TypeError, "hotwords[1] must be a HotWords or None, got str"),
        ([HOTWORDS], ValueError, "hotwords must have one element for each of the 2 samples, got 1"),
    ],
    ids=str,
)
def test_hot_words_of_samples_that_break_their_rule(hotwords, error, message):
    with raises_exactly(error, message):
        BeamSearchDecoder(TOKENS)(torch.zeros(2, 4, 5), hotwords=hotwords)


def test_a_model_over_words_has_one_lexicon(write_file):
    arpa = write_file(BackoffModel(1, {("ab",): (-1.0, 0.0)}).arpa())
    decoder = BeamSearchDecoder(TOKENS, lexicon=LEXICON, lm=arpa)
    with raises_exactly(
        ValueError, "lexicon must be lm.lexicon (the same object) for all samples: lm is over its words"
    ):
        decoder(torch.zeros(2, 4, 5), lexicon=[LEXICON, None])
