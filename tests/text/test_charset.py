"""Charset: encoding, decoding, NFC, unknown characters, copies."""

import copy
import json
import math
import pickle
import re
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crnn_ext.ctc import beam_search, greedy_decode
from crnn_ext.text import Charset

INTEGER_DTYPES = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 6624)))

# Letters and marks that compose, conjoining Hangul, and any other character.
composing = st.sampled_from("ea\u00e9\u0301\u0327\u0308\u1100\u1161\u11a8\uac00\u0915\u093f")
unicode_texts = st.lists(st.text(st.one_of(composing, st.characters(codec="utf-8"))))


def nfc(text):
    return unicodedata.normalize("NFC", text)


@given(texts=unicode_texts, data=st.data())
def test_charset_encode_decode_round_trip(texts, data):
    characters = Charset.from_labels(texts).characters
    charset = Charset(characters, blank=data.draw(st.integers(0, len(characters))))
    composed = [nfc(text) for text in texts]

    targets, lengths = charset.encode(texts)
    assert targets.dtype == lengths.dtype == torch.int64
    assert targets.shape == (len(texts), max(map(len, composed), default=0))
    assert lengths.tolist() == [len(text) for text in composed]
    assert charset.decode(targets, lengths) == composed
    assert charset.decode(targets) == composed

    concatenated, lengths = charset.encode(texts, padded=False)
    assert concatenated.shape == (sum(lengths),)
    assert charset.blank not in concatenated.tolist()
    assert charset.decode(concatenated, lengths) == composed


@given(text=st.text(st.characters()), known=st.text(st.characters(codec="utf-8")))
def test_charset_skips_and_counts_unknown_characters(text, known):
    """Any str, including lone surrogates, against a loop over a dict."""
    charset = Charset.from_labels(known)
    classes = {character: index for index, character in enumerate(charset.characters, start=1)}
    found = [classes[character] for character in nfc(text) if character in classes]
    missing = [character for character in nfc(text) if character not in classes]

    targets, length = charset.encode(text, unknown="skip")
    assert targets.tolist() == found
    assert length == len(found)
    unknown = charset.count_unknown([text])
    assert sorted(unknown.elements()) == sorted(missing)
    if missing:
        with pytest.raises(ValueError, match=re.escape(f"got {missing[0]!r} (U+{ord(missing[0]):04X})")):
            charset.encode(text)
    else:
        assert charset.encode(text)[0].tolist() == found


@pytest.mark.parametrize("blank", [0, 3312, 6624])
def test_charset_thousands_of_han_characters(blank):
    charset = Charset(HAN, blank)
    assert charset.num_classes == 6625
    classes = [label for label in range(6625) if label != blank]
    assert charset.encode(HAN)[0].tolist() == classes
    assert charset.decode(classes) == HAN

    lines = [HAN[start : start + 1 + start % 17] for start in range(0, 6624, 13)]
    targets, lengths = charset.encode(lines)
    assert targets.shape == (510, 17)
    assert charset.decode(targets, lengths) == lines
    assert charset.decode(*charset.encode(lines, padded=False)) == lines


def test_charset_classes_around_blank():
    for blank, classes in ((0, [1, 2, 3]), (1, [0, 2, 3]), (3, [0, 1, 2])):
        charset = Charset("abc", blank)
        assert charset.blank == blank
        assert charset.characters == "abc"
        assert charset.num_classes == 4
        assert charset.encode("abc")[0].tolist() == classes


def test_charset_encode_padded_and_concatenated():
    charset = Charset("abc")
    targets, lengths = charset.encode(["ab", "", "abc"])
    assert targets.tolist() == [[1, 2, -1], [-1, -1, -1], [1, 2, 3]]
    assert lengths.tolist() == [2, 0, 3]
    targets, lengths = charset.encode(["ab", "", "abc"], padded=False)
    assert targets.tolist() == [1, 2, 1, 2, 3]
    assert lengths.tolist() == [2, 0, 3]
    targets, length = charset.encode("abc")
    assert targets.tolist() == [1, 2, 3]
    assert length.shape == ()
    assert length == 3
    assert [part.shape for part in charset.encode([])] == [(0, 0), (0,)]
    assert [part.shape for part in charset.encode([], padded=False)] == [(0,), (0,)]
    assert charset.encode(text for text in ["c"])[0].tolist() == [[3]]


def test_charset_encode_returns_new_tensors():
    charset = Charset("ab")
    targets, lengths = charset.encode(["ab"], padded=False)
    targets += 5
    lengths += 5
    again, lengths = charset.encode(["ab"], padded=False)
    assert again.tolist() == [1, 2]
    assert lengths.tolist() == [2]


def test_charset_composes_input_to_nfc():
    charset = Charset(["e\u0301", "\u1100\u1161", "\u212b"])
    assert charset.characters == "é가Å"
    assert charset.encode("e\u0301\u1100\u1161A\u030a")[0].tolist() == [1, 2, 3]
    assert charset.decode([1, 2, 3]) == "é가Å"
    assert Charset.from_labels(["e\u0301", "é"]).characters == "é"
    # A vowel sign does not compose; a mark alone is a character.
    assert Charset.from_labels("\u0915\u093f").characters == "\u0915\u093f"
    assert charset.count_unknown("e\u0302\u0301") == {"\u1ebf": 1}


def test_charset_from_labels():
    charset = Charset.from_labels(["cab", "", "b𠀀 "], blank=2)
    assert charset == Charset(" abc𠀀", blank=2)
    assert Charset.from_labels("hello") == Charset("ehlo")
    assert Charset.from_labels([]).num_classes == 1


@pytest.mark.parametrize("content", ["c\na\nb\n", "\ufeffcab", "c\r\na\r\r\nb", "cacacab\n\ncab"], ids=ascii)
def test_charset_from_file(write_file, content):
    assert Charset.from_file(write_file(content)) == Charset("cab")
    assert Charset.from_file(str(write_file(content)), blank=3) == Charset("cab", blank=3)


def test_charset_from_file_keeps_other_whitespace(write_file):
    """Marks compose within a line; white space other than line breaks counts as characters."""
    assert Charset.from_file(write_file("e\u0301\n \u2028\n\u3000\x0b\ta\n\u0308")) == Charset(
        "\u00e9 \u2028\u3000\x0b\ta\u0308"
    )


def test_charset_encode_unknown_character_error():
    charset = Charset("abc")
    message = (
        "encode: texts must consist of characters of the charset, got '\u00e4' (U+00E4) at position 1 of "
        "texts[1], 'b\u00e4d'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        charset.encode(["abc", "ba\u0308d"])
    with pytest.raises(ValueError, match=r"got 'x' \(U\+0078\) at position 0 of texts\[0\], 'x+\.\.\.x+'$"):
        charset.encode("x" * 10_000)
    assert charset.count_unknown(["xay", "b", "x"]) == {"x": 2, "y": 1}
    assert charset.count_unknown("abc") == {}
    targets, lengths = charset.encode(["xay", "", "zb"], unknown="skip")
    assert targets.tolist() == [[1], [-1], [2]]
    assert lengths.tolist() == [1, 0, 1]
    assert charset.encode(["xyz"], unknown="skip")[0].shape == (1, 0)


def test_charset_decodes_greedy_result():
    charset = Charset("ab", blank=1)
    paths = torch.tensor([[0, 0, 1, 0, 2], [1, 1, 1, 1, 1], [2, 1, 2, 0, 0]])
    logits = 9.0 * torch.nn.functional.one_hot(paths.T, charset.num_classes)
    result = greedy_decode(logits, blank=charset.blank)
    assert result.tokens.shape == (3, 5)
    assert charset.decode(result.tokens, result.lengths) == ["aab", "", "bba"]
    single = greedy_decode(logits[:, 2], blank=charset.blank)
    assert charset.decode(single.tokens, single.lengths) == "bba"


def test_charset_decodes_beam_search_result():
    """All n-best lists in one call; texts may be missing."""
    charset = Charset("ab", blank=1)
    logits = torch.full((3, 2, 3), -math.inf)
    logits[:, 0, [0, 1]] = 0.0
    logits[:, 1, 1] = 0.0
    result = beam_search(logits, blank=charset.blank, nbest=3)
    assert result.lengths.tolist() == [[1, 0, 2], [0, -1, -1]]
    assert charset.decode(result.tokens, result.lengths) == [["a", "", "aa"], ["", "", ""]]
    single = beam_search(logits[:, 0], blank=charset.blank, nbest=3)
    assert charset.decode(single.tokens, single.lengths) == ["a", "", "aa"]


def test_charset_decode_lengths():
    charset = Charset("abc")
    rows = [[1, 2, 0], [3, -1, 3]]
    assert charset.decode(rows, [2, 3]) == ["ab", "cc"]
    assert charset.decode(rows, [0, 1]) == ["", "c"]
    assert charset.decode([1, 2, 3], [1, 0, 2]) == ["a", "", "bc"]
    assert charset.decode([1, 2, 0, 0], 2) == "ab"
    assert charset.decode([1, 2, 3], torch.tensor([3])) == ["abc"]
    assert charset.decode([]) == ""
    assert charset.decode([], []) == []
    assert charset.decode(torch.zeros(2, 0, dtype=torch.int64)) == ["", ""]
    lists = [[[1, 2], [3, -1]], [[2, 0], [0, 0]]]
    assert charset.decode(lists, [[2, 2], [1, -1]]) == [["ab", "c"], ["b", ""]]
    assert charset.decode([[[1, 2], [3, -1]]]) == [["ab", "c"]]
    assert charset.decode(rows, [-1, 1]) == ["", "c"]
    assert charset.decode([0, 0], -1) == ""
    for shape in [(0, 2, 3), (2, 0, 3), (2, 3, 0)]:
        texts = charset.decode(torch.zeros(shape, dtype=torch.int64))
        assert texts == [[""] * shape[1]] * shape[0]
    assert charset.decode(torch.zeros(0, 4, dtype=torch.int64), []) == []


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_charset_decode_integer_dtypes(dtype):
    charset = Charset("abc")
    tokens = torch.tensor([[1, 2, 3], [3, 1, 0]], dtype=dtype)
    lengths = torch.tensor([3, 2], dtype=dtype)
    assert charset.decode(tokens, lengths) == ["abc", "ca"]
    assert charset.decode(tokens.numpy(), lengths.numpy()) == ["abc", "ca"]


def test_charset_decode_strides():
    charset = Charset("abc")
    tokens = torch.tensor([[1, 2, 3], [3, 1, 2]])
    assert charset.decode(tokens.T) == ["ac", "ba", "cb"]
    assert charset.decode(tokens[:, ::2], torch.tensor([2, 9, 2, 9])[::2]) == ["ac", "cb"]
    assert charset.decode(torch.tensor([2]).expand(4)) == "bbbb"
    assert charset.decode(tokens.numpy()[::-1, ::-1]) == ["bac", "cba"]
    assert charset.decode(tokens.numpy().astype(">i8")) == ["abc", "cab"]
    unaligned = np.frombuffer(b"\0" + tokens.numpy().tobytes(), np.int64, offset=1)
    assert charset.decode(unaligned) == "abccab"


@given(
    tokens=st.lists(st.lists(st.integers(-3, 6), min_size=4, max_size=4)),
    lengths=st.lists(st.integers(-2, 5)),
    data=st.data(),
)
def test_charset_decode_equals_reference_or_raises(tokens, lengths, data):
    """Arbitrary tokens and lengths, against a loop over lists."""
    charset = Charset("abc", blank=data.draw(st.integers(0, 3)))
    array = np.array(tokens, np.int64).reshape(-1, 4)
    characters = {label: charset.decode([label]) for label in range(4) if label != charset.blank}
    valid_lengths = len(lengths) == len(tokens) and all(-1 <= length <= 4 for length in lengths)
    rows = [
        [token for token in row[: max(length, 0)] if token >= 0]
        for row, length in zip(tokens, lengths, strict=False)
    ]
    if valid_lengths and all(token in characters for row in rows for token in row):
        expected = ["".join(characters[token] for token in row) for row in rows]
        assert charset.decode(array, lengths) == expected
        assert charset.decode(array[:, None], np.array(lengths)[:, None]) == [[text] for text in expected]
    else:
        with pytest.raises(ValueError, match=r"^decode: "):
            charset.decode(array, lengths)


def test_charset_equality_and_hash():
    charset = Charset("aé", blank=1)
    assert charset == Charset(["a", "e\u0301"], blank=1)
    assert len({charset, Charset("aé", 1), Charset("éa", 1), Charset("aé", 0)}) == 3
    assert charset != Charset("éa", blank=1)
    assert charset != Charset("aé", blank=0)
    assert charset != "aé"


def test_charset_copies():
    charset = Charset("a𠀀é", blank=2)
    for copied in (
        pickle.loads(pickle.dumps(charset)),
        copy.deepcopy(charset),
        Charset.from_dict(json.loads(json.dumps(charset.to_dict()))),
    ):
        assert copied == charset
        assert copied.encode("é𠀀a")[0].tolist() == [3, 1, 0]
    assert charset.to_dict() == {"characters": "a𠀀é", "blank": 2}


def test_charset_repr():
    assert repr(Charset("ab", blank=1)) == "Charset('ab', blank=1)"
    assert len(repr(Charset(HAN))) < 100
