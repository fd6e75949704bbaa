"""Charset: argument errors and their messages."""

import numpy as np
import pytest
import torch
from helpers.results import raises_exactly

from crnn_ext import _text
from crnn_ext.text import Charset


@pytest.mark.parametrize(
    ("tokens", "lengths", "message"),
    [
        (
            [[1, 2], [3, 0]],
            None,
            "tokens must be collapsed (repeats and blanks removed), got tokens[1, 1] = 0, the blank",
        ),
        ([1, 4], None, "tokens[1] must be below num_classes=4, got 4"),
        ([2**63 - 1], None, "tokens[0] must be below num_classes=4, got 9223372036854775807"),
        ([2**64 - 1], None, "tokens must be below 2^63, got 18446744073709551615"),
        (1, None, "tokens must have 1 to 3 dimensions, got 0"),
        ([[[[1]]]], None, "tokens must have 1 to 3 dimensions, got 4"),
        ([[[1], [9]]], None, "tokens[0, 1, 0] must be below num_classes=4, got 9"),
        ([[1, 2]], [3], "lengths[0] must be in [-1, 2], got 3"),
        ([[1, 2], [1, 2]], [-1, -2], "lengths[1] must be in [-1, 2], got -2"),
        ([[[1, 2], [1, 2]]], [[2, 3]], "lengths[0, 1] must be in [-1, 2], got 3"),
        ([1, 2], 3, "lengths must be in [-1, 2], got 3"),
        ([1, 2], [-1, 3], "lengths[0] must be in [0, 2], got -1"),
        ([1, 2], [1, 2], "lengths must add up to 2, the length of tokens, got a sum of 3"),
        ([1, 2], [1], "lengths must add up to 2, the length of tokens, got a sum of 1"),
    ],
)
def test_charset_decode_value_errors(tokens, lengths, message):
    with raises_exactly(ValueError, f"decode: {message}"):
        Charset("abc").decode(tokens, lengths)


@pytest.mark.parametrize(
    ("tokens", "lengths", "shapes"),
    [
        ([[1, 2]], 1, "() for tokens of shape (1, 2)"),
        ([[1, 2]], [1, 1], "(2,) for tokens of shape (1, 2)"),
        ([[1, 2]], [[1]], "(1, 1) for tokens of shape (1, 2)"),
        ([[[1, 2]]], [1], "(1,) for tokens of shape (1, 1, 2)"),
        ([[[1, 2]]], [[1, 1]], "(1, 2) for tokens of shape (1, 1, 2)"),
    ],
)
def test_charset_decode_shape_errors(tokens, lengths, shapes):
    with raises_exactly(
        ValueError,
        "decode: lengths must be (N,) for tokens (N, T), (N, K) for tokens (N, K, T), and (N,) or () for "
        f"1-D tokens, got shape {shapes}",
    ):
        Charset("abc").decode(tokens, lengths)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1.0], "float64"), ([True], "bool"), (["a"], "<U1"), (None, "object"), ([2**70], "object")],
)
def test_charset_decode_dtype_errors(values, dtype):
    charset = Charset("abc")
    with raises_exactly(TypeError, f"decode: tokens must be an array of integers, got {dtype}"):
        charset.decode(values)
    if values is not None:  # lengths=None is valid
        with raises_exactly(TypeError, f"decode: lengths must be an array of integers, got {dtype}"):
            charset.decode([1], values)


@pytest.mark.parametrize("tokens", [[[1, 2], [3]], torch.tensor([1.0], dtype=torch.bfloat16)])
def test_charset_decode_non_array_errors(tokens):
    with pytest.raises(TypeError, match=r"^decode: tokens must be an array of integers \(.+\)$"):
        Charset("abc").decode(tokens)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("aba",), ValueError, "Charset: characters must be distinct, got 'a' (U+0061) at 0 and 2"),
        (
            (["é", "b", "e\u0301"],),
            ValueError,
            "Charset: characters must be distinct, got 'é' (U+00E9) at 0 and 2",
        ),
        ((["ab"],), ValueError, "Charset: characters[0] must be one code point after NFC, got 2 in 'ab'"),
        ((["a", ""],), ValueError, "Charset: characters[1] must be one code point after NFC, got 0 in ''"),
        (
            ("\u0958",),
            ValueError,
            "Charset: characters[0] must be one code point after NFC, got 2 in '\u0958'",
        ),
        (
            ("a\udfff",),
            ValueError,
            "Charset: characters[1] must not be a lone surrogate, got '\\udfff' (U+DFFF)",
        ),
        ((b"ab",), TypeError, "Charset: characters[0] must be a str, got int"),
        (
            ({"a", "b"},),
            TypeError,
            "Charset: characters must be a str or a sequence of str, got set",
        ),
        (("ab", -1), ValueError, "Charset: blank must be in [0, 2], got -1"),
        (("ab", 3), ValueError, "Charset: blank must be in [0, 2], got 3"),
        (("ab", 10**30), ValueError, f"Charset: blank must be in [0, 2], got {10**30}"),
        (("ab", True), TypeError, "Charset: blank must be an int, got bool"),
        (("ab", 0.0), TypeError, "Charset: blank must be an int, got float"),
    ],
)
def test_charset_character_errors(arguments, error, message):
    with raises_exactly(error, message):
        Charset(*arguments)


def test_charset_from_file_errors(write_file, tmp_path):
    for content, message in [
        (b"a\xff", "a charset file must be UTF-8"),
        ("ab".encode("utf-16"), "a charset file must be UTF-8"),
        ("", "a charset file must hold at least one character"),
        ("\ufeff\r\n\n", "a charset file must hold at least one character"),
    ]:
        path = write_file(content)
        with raises_exactly(ValueError, f"{path}: {message}"):
            Charset.from_file(path)
    with pytest.raises(FileNotFoundError):
        Charset.from_file(tmp_path / "missing")


@pytest.mark.parametrize("operation", ["encode", "count_unknown", "from_labels"])
def test_charset_text_type_errors(operation):
    call = getattr(Charset("abc"), operation)
    with raises_exactly(TypeError, f"{operation}: texts[1] must be a str, got bytes"):
        call(["a", b"b"])
    with raises_exactly(TypeError, f"{operation}: texts must be a str or an iterable of str, got int"):
        call(7)


def test_charset_encode_unknown_option_error():
    with raises_exactly(ValueError, "encode: unknown must be one of 'error', 'skip', got 'count'"):
        Charset("abc").encode("abc", unknown="count")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], TypeError, "from_dict: data must be a mapping, got list"),
        ({}, ValueError, "from_dict: data must have the keys ['blank', 'characters'], got []"),
        (
            {"characters": "a", "blank": 0, "x": 1},
            ValueError,
            "from_dict: data must have the keys ['blank', 'characters'], got ['characters', 'blank', 'x']",
        ),
        (
            {"characters": None, "blank": 0},
            TypeError,
            "Charset: characters must be a str or a sequence of str, got NoneType",
        ),
        ({"characters": [1], "blank": 0}, TypeError, "Charset: characters[0] must be a str, got int"),
        ({"characters": "a", "blank": "0"}, TypeError, "Charset: blank must be an int, got str"),
        ({"characters": "a", "blank": 2}, ValueError, "Charset: blank must be in [0, 1], got 2"),
        (
            {"characters": "\ud800", "blank": 0},
            ValueError,
            "Charset: characters[0] must not be a lone surrogate, got '\\ud800' (U+D800)",
        ),
    ],
)
def test_charset_from_dict_errors(data, error, message):
    with raises_exactly(error, message):
        Charset.from_dict(data)


def test_charset_native_bounds_checks():
    """Arguments that charset.py never passes: they raise, and nothing outside the arrays is read."""
    native = _text.Charset("abc", 0)
    tokens = np.array([1, 2, 3])
    assert native.decode(tokens, np.array([1, 3]), np.array([2, 0])) == (["bc", ""], None)
    assert native.decode(tokens, np.array([0]), np.array([3])) == (["abc"], None)
    limits = np.iinfo(np.int64)
    for start, length in (
        *((0, 4), (3, 1), (4, 0), (-1, 2), (0, -1)),
        *((limits.max, limits.max), (limits.min, limits.max), (1, limits.max), (limits.max, 1)),
    ):
        with raises_exactly(IndexError, "decode: starts and lengths exceed tokens"):
            native.decode(tokens, np.array([start]), np.array([length]))
    with raises_exactly(IndexError, "decode: starts and lengths differ in size"):
        native.decode(tokens, np.array([0]), np.array([3, 3]))
    for label in (0, 4, limits.max):
        assert native.decode(np.array([1, label]), np.array([0]), np.array([2]))[1] == 1
    for blank in (-1, 4, limits.min, limits.max):
        with raises_exactly(IndexError, "Charset: blank out of range"):
            _text.Charset("abc", blank)
    with raises_exactly(TypeError, "encode: texts must be str"):
        native.encode((b"abc",))
    for wrong in (tokens.astype(np.float64), None):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            native.decode(wrong, np.array([0]), np.array([3]))
