"""ARPA files: accepted formats, errors, damaged and large files."""

import gzip
import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.automaton import assert_valid
from reference.ngram import LN10

from crnn_ext import _text
from crnn_ext.text import NGramModel
from crnn_ext.text._tables import Automaton

SMALL = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-99\t<s>\t-0.25
-1\t</s>
-2\t<unk>
-0.5\ta\t-0.125
-0.75\tb

\\2-grams:
-0.25\t<s> a
-0.5\ta b
-0.125\tb </s>

\\end\\
"""


def load(folder, content, name="model.arpa"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return NGramModel.from_arpa(path, ["a", "b", "c"])


def scores(model):
    return [model.score(text) / LN10 for text in ([], ["a"], ["a", "b"], ["b", "c", "a"])]


SMALL_SCORES = pytest.approx(
    [-0.25 - 1, -0.25 - 0.125 - 1, -0.25 - 0.5 - 0.125, -0.25 - 0.75 - 2 - 0.5 - 0.125 - 1], abs=1e-6
)


def replaced(old, new):
    assert old in SMALL
    return SMALL.replace(old, new)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SMALL, id="unchanged"),
        pytest.param(replaced("\n", "\r\n"), id="CRLF"),
        pytest.param(SMALL.rstrip("\n"), id="no final line break"),
        pytest.param(replaced("\n", "\n\n \t\n"), id="blank lines"),
        pytest.param(replaced("\t", "  \t "), id="mixed white space"),
        pytest.param(replaced("\t", " "), id="spaces"),
        pytest.param("ngram 7=x\nmade by hand: \xe9\n" + SMALL, id="text before"),
        pytest.param(b"\xff\xfe\n" + SMALL.encode(), id="text before, not UTF-8"),
        pytest.param("\ufeff" + SMALL, id="byte order mark"),
        pytest.param(replaced("ngram 1=5", "ngram  1 =  5"), id="spaces in counts"),
        pytest.param(replaced("-0.125", "-1.25e-01"), id="exponents"),
        pytest.param(replaced("<unk>", "<UNK>"), id="<UNK>"),
        pytest.param(replaced("-0.75\tb\n", "-0.75\tb\t0\n"), id="backoff weight of 0"),
        pytest.param(
            replaced("-0.5\ta b\n", "-0.5\ta b\t0.0\n"), id="backoff weight of 0 in the highest order"
        ),
        pytest.param(gzip.compress(SMALL.encode()), id="gzip"),
        pytest.param(gzip.compress(SMALL[:50].encode()) + gzip.compress(SMALL[50:].encode()), id="two gzip"),
    ],
)
def test_arpa_accepted_formats(tmp_path, content):
    assert scores(load(tmp_path, content)) == SMALL_SCORES


def test_arpa_reader_chunk_boundaries():
    """The whole file, byte by byte, and every split into two chunks."""
    text = SMALL.encode()

    def automaton(chunks):
        reader = _text.ArpaReader()
        for chunk in chunks:
            reader.read(chunk)
        assert reader.lines == SMALL.count("\n")
        return [part.tolist() for part in reader.finish().automaton([3, 4])[:-1]]

    expected = automaton([text])
    assert automaton(text[i : i + 1] for i in range(len(text))) == expected
    for cut in range(len(text)):
        assert automaton([text[:cut], text[cut:]]) == expected


def test_arpa_special_numbers(tmp_path):
    model = load(tmp_path, replaced("-0.5\ta b", "-inf\ta b").replace("-0.125\n", "-inf\n", 1))
    assert_valid(model.automaton, 3)
    assert model.score(["a", "b"]) == -math.inf
    assert model.score(["b"], eos=False) / LN10 == pytest.approx(-0.25 - 0.75)
    # A missing backoff weight is 1; a weight may be above 1.
    without = load(tmp_path, replaced("\t-0.25\n", "\n"))
    assert without.score(["b"], eos=False) / LN10 == pytest.approx(-0.75)
    above = load(tmp_path, replaced("\t-0.25\n", "\t3\n"))
    assert above.score(["b"], eos=False) / LN10 == pytest.approx(3 - 0.75)


def test_arpa_without_unk(tmp_path):
    model = load(tmp_path, replaced("-2\t<unk>\n", "").replace("1=5", "1=4"))
    assert model.score(["c"], eos=False) / LN10 == pytest.approx(-0.25 - 100)


def test_arpa_unigram_model_without_markers(tmp_path):
    model = load(tmp_path, "\\data\\\nngram 1=1\n\\1-grams:\n-0.5 a\n\\end\\\n")
    assert_valid(model.automaton, 3)
    assert model.order == 1
    assert model.score(["a", "a"], eos=False) / LN10 == pytest.approx(-1)
    assert model.score([]) / LN10 == pytest.approx(-100)  # </s> scores like any word that the file lacks


def test_arpa_empty_orders(tmp_path):
    text = replaced("ngram 2=3\n", "ngram 2=3\nngram 3=0\n").replace("\\end\\", "\\3-grams:\n\n\\end\\")
    model = load(tmp_path, text)
    assert model.order == 3
    assert scores(model) == SMALL_SCORES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 0: not an ARPA file: it ends without a line \\data\\"),
        ("a\nb\n", "line 2: not an ARPA file: it ends without a line \\data\\"),
        ("\\data\\", "line 1: the file ends without a line \\end\\"),
        ("\\data\\\n\\1-grams:\n", "line 2: a line 'ngram 1=<count>' must come before '\\x5c1-grams:'"),
        (replaced("\\end\\", ""), "line 17: the file ends without a line \\end\\"),
        (SMALL + "-1 a\n", "line 18: nothing may follow \\end\\, got '-1 a'"),
        (replaced("1=5", "1=x"), "line 2: the line must be 'ngram <order>=<count>', got 'ngram 1=x'"),
        (replaced("1=5", "1=-5"), "line 2: the line must be 'ngram <order>=<count>', got 'ngram 1=-5'"),
        (
            replaced("1=5", f"1={10**30}"),
            f"line 2: the line must be 'ngram <order>=<count>', got 'ngram 1={10**30}'",
        ),
        (
            replaced("ngram 1=5", "1-grams 5"),
            "line 2: the line must be 'ngram <order>=<count>', got '1-grams 5'",
        ),
        (
            replaced("ngram 2", "ngram 3"),
            "line 3: counts must be given for orders 1, 2, 3 and so on, got order 3 after 1",
        ),
        (
            replaced("1=5\n", "1=5\nngram 1=5\n"),
            "line 3: counts must be given for orders 1, 2, 3 and so on, got order 1 after 1",
        ),
        (replaced("1=5", "1=6"), "line 12: there must be 6 1-grams as declared, got 5"),
        (replaced("2=3", f"2={2**62}"), f"line 17: there must be {2**62} 2-grams as declared, got 3"),
        (replaced("2=3", "2=2"), "line 15: there must be 2 2-grams as declared, got more"),
        (
            replaced("\\1-grams:", "\\2-grams:"),
            "line 5: the line must be \\1-grams:, got '\\x5c2-grams:'",
        ),
        (
            replaced("\\2-grams:", "\\end\\"),
            "line 12: the line must be \\2-grams:, got '\\x5cend\\x5c'",
        ),
        (
            replaced("ngram 2=3\n", "ngram 2=3\nngram 3=1\n"),
            "line 18: the line must be \\3-grams:, got '\\x5cend\\x5c'",
        ),
        (
            replaced("-0.5\ta b", "-0.5\ta b a"),
            "line 14: the log10 of a back-off weight must be a number, got 'a'",
        ),
        (
            replaced("-0.5\ta b", "-0.5\ta b a -1"),
            "line 14: a line of \\2-grams: must have a probability, 2 words and optionally a back-off "
            "weight, got 5 fields",
        ),
        (
            replaced("-0.5\ta b", "-0.5\ta"),
            "line 14: a line of \\2-grams: must have a probability, 2 words and optionally a back-off "
            "weight, got 2 fields",
        ),
        (
            replaced("-0.75", "-0,75"),
            "line 10: the log10 of a probability must be a number, got '-0,75'",
        ),
        (replaced("-0.75", "nan"), "line 10: the log10 of a probability must be a number, got 'nan'"),
        (
            replaced("-0.75", "0.75"),
            "line 10: the log10 of a probability must be at most 0, got '0.75'",
        ),
        (replaced("-0.75", "inf"), "line 10: the log10 of a probability must be at most 0, got 'inf'"),
        (
            replaced("-0.125\n", "inf\n"),
            "line 9: the log10 of a back-off weight must be at most 1e+06, got 'inf'",
        ),
        (
            replaced("-0.125\n", "-nan\n"),
            "line 9: the log10 of a back-off weight must be a number, got '-nan'",
        ),
        (
            replaced("a b\n", "a b\t-0.5\n"),
            "line 14: an n-gram of the highest order must have no back-off weight, got '-0.5'",
        ),
        (replaced("a b", "a x"), "line 14: every word must be a 1-gram, got 'x'"),
        (
            replaced("a b", "b </s>"),
            "line 15: duplicate n-gram",
        ),
        (
            replaced("\tb\n", "\ta\n"),
            "line 10: duplicate n-gram",
        ),
        (
            replaced("\ta\t-0.125", "\t<UNK>"),
            "line 9: duplicate n-gram",
        ),
        (
            replaced("<s>", "<S>"),
            "line 12: a model of order 2 must have <s> and </s> among its 1-grams, but <s> is missing",
        ),
        (
            replaced("\t</s>", "\tc"),
            "line 12: a model of order 2 must have <s> and </s> among its 1-grams, but </s> is missing",
        ),
        (replaced("\tb\n", "\t\xe9\n").encode("latin-1"), "line 10: words must be UTF-8, got '\\xe9'"),
        (
            SMALL.encode().replace(b"\tb\n", b"\t" + b"\xed\xa0\x80" * 40 + b"\n"),
            "line 10: words must be UTF-8, got '" + r"\xed\xa0\x80" * 5 + "...'",
        ),
        ("a" * (2**20 + 1), "line 1: a line must have at most 2^20 bytes"),
        (f"\n{'a' * (2**20 + 1)}\n{SMALL}", "line 2: a line must have at most 2^20 bytes"),
    ],
)
def test_arpa_errors(tmp_path, content, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - all of the message is compared
        load(tmp_path, content)
    assert str(caught.value) == f"from_arpa: {tmp_path / 'model.arpa'}, {message}"


def test_arpa_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        NGramModel.from_arpa(tmp_path / "none.arpa", ["a"])
    with pytest.raises(IsADirectoryError):
        NGramModel.from_arpa(tmp_path, ["a"])


def test_arpa_rejects_kenlm_binary(tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - all of the message is compared
        load(tmp_path, b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(1000), "model.bin")
    path = tmp_path / "model.bin"
    assert str(caught.value) == f"from_arpa: path must name an ARPA file, got {path}, a KenLM binary file"


def test_arpa_damaged_gzip(tmp_path):
    lines = "".join(f"-1\t{word}\n" for word in ["a", *map(chr, range(0x4E00, 0x4E00 + 2000))])
    text = f"\\data\\\nngram 1=2001\n\\1-grams:\n{lines}\\end\\\n"
    whole = gzip.compress(text.encode())
    assert load(tmp_path, whole, "model.gz").order == 1
    path = re.escape(str(tmp_path / "model.gz"))
    for size in range(2, len(whole), 97):
        with pytest.raises(
            ValueError, match=f"^from_arpa: {path}, after line [0-9]+: Compressed file ended "
        ):
            load(tmp_path, whole[:size], "model.gz")
    for place in (10, len(whole) // 2, len(whole) - 6):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        with pytest.raises(ValueError, match=f"^from_arpa: {path}, "):
            load(tmp_path, bytes(damaged), "model.gz")


def test_arpa_gzip_bomb_stops_early(tmp_path):
    bomb = gzip.compress(bytes(1 << 28), compresslevel=1)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="line 1: a line must have at most"):
        load(tmp_path, bomb)
    assert time.perf_counter() - start < 1


mutations = st.lists(
    st.tuples(
        st.integers(0, len(SMALL) - 1),
        st.one_of(
            st.binary(max_size=3),
            st.sampled_from(
                [b"\n", b"\t", b"\\", b"<s>", b"-inf", b"inf", b"nan", b"1e309", b"-1e-9", b"9", b"\0"]
            ),
        ),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=4,
)


@given(mutations=mutations)
def test_arpa_mutated_files(mutations):
    content = bytearray(SMALL.encode())
    for place, new, length in mutations:
        content[place : place + length] = new
    reader = _text.ArpaReader()
    ngrams, message = None, ""
    try:
        reader.read(bytes(content))
        ngrams = reader.finish()
    except ValueError as error:
        message = str(error)
    if ngrams is None:
        assert re.match(r"line \d+: ", message)
    else:
        words = range(len(ngrams.words))
        assert_valid(Automaton.from_native(ngrams.automaton(words)), len(words))


def test_arpa_many_unigrams(tmp_path):
    words = 200_000
    lines = "".join(f"-{1 + number % 7}.5\tw{number}\n" for number in range(words))
    path = tmp_path / "large.arpa"
    path.write_text(f"\\data\\\nngram 1={words}\n\\1-grams:\n{lines}\\end\\\n")
    model = NGramModel.from_arpa(path, [f"w{number}" for number in range(words)])
    assert_valid(model.automaton, words)
    assert model.score([0, 6, words - 1], eos=False) / LN10 == pytest.approx(-1.5 - 7.5 - 3.5)


def test_arpa_native_arguments():
    reader = _text.ArpaReader()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^line 0: not an ARPA file"):
            reader.finish()
        reader.read(SMALL.encode())
        ngrams = reader.finish()
    for word in (-1, 5, 2**31 - 1):
        with pytest.raises(IndexError):
            ngrams.automaton([word])
