"""Checks of arguments and their messages."""

import math

import pytest
import torch
from helpers.results import raises_exactly

from crnn_ext._arguments import (
    check_bool,
    check_choice,
    check_each_str,
    check_index,
    check_int,
    check_keys,
    check_number,
    check_str,
    check_type,
)

INF, NAN = math.inf, math.nan


def test_accepted_values():
    check_type("x", torch.zeros(1), torch.Tensor, "a tensor")
    check_bool("x", False)
    check_str("x", "")
    check_each_str("x", ["a", ""])
    check_int("x", 3, 3, 3)
    check_int("x", 10**30, 0)
    check_index("x", 0, 1)
    check_number("x", 0, 0, 0)
    check_number("x", -1e300)
    check_number("x", 10**400)
    check_number("x", -INF, maximum=0, finite=False)
    check_number("x", INF, minimum=0, finite=False)
    check_choice("x", "a", ("a", "b"))
    assert check_keys("x", {"b": 1, "a": 2}, {"a", "b"}) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (check_type, ([], torch.Tensor, "a tensor"), "x must be a tensor, got list"),
        (check_bool, (1,), "x must be a bool, got int"),
        (check_str, (b"a",), "x must be a str, got bytes"),
        (check_each_str, (["a", 3],), "x[1] must be a str, got int"),
        (check_int, (True, 0), "x must be an int, got bool"),
        (check_int, (1.0, 0, 3), "x must be an int, got float"),
        (check_index, (None, 3), "x must be an int, got NoneType"),
        (check_number, ("1",), "x must be a number, got str"),
        (check_number, (True, 0, 1), "x must be a number, got bool"),
        (check_choice, (["a"], ("a", "b")), "x must be a str, got list"),
        (check_keys, ([], {"a"}), "x must be a mapping, got list"),
    ],
)
def test_values_of_a_wrong_type(check, arguments, message):
    with raises_exactly(TypeError, message):
        check("x", *arguments)


@pytest.mark.parametrize(
    ("check", "arguments", "options", "message"),
    [
        (check_int, (0, 1), {}, "x must be at least 1, got 0"),
        (check_int, (0, 1, 1024), {}, "x must be in [1, 1024], got 0"),
        (check_int, (1025, 1, 1024), {}, "x must be in [1, 1024], got 1025"),
        (check_int, (-(10**100), 0), {}, f"x must be at least 0, got -1{'0' * 58}"),
        (check_index, (-1, 3), {}, "x must be in [0, 3), got -1"),
        (check_index, (3, 3), {}, "x must be in [0, 3), got 3"),
        (check_number, (-0.5, 0, 2), {}, "x must be in [0, 2], got -0.5"),
        (check_number, (NAN, 0, 2), {}, "x must be in [0, 2], got nan"),
        (check_number, (INF, 0, 2), {}, "x must be in [0, 2], got inf"),
        (check_number, (NAN,), {}, "x must be finite, got nan"),
        (check_number, (-INF,), {}, "x must be finite, got -inf"),
        (check_number, (INF,), {"minimum": 0}, "x must be finite, got inf"),
        (check_number, (-1,), {"minimum": 0}, "x must be at least 0, got -1"),
        (check_number, (0.5,), {"maximum": 0}, "x must be at most 0, got 0.5"),
        (check_number, (NAN,), {"maximum": 0, "finite": False}, "x must be a number, got nan"),
        (check_number, (INF,), {"maximum": 0, "finite": False}, "x must be at most 0, got inf"),
        (check_choice, ("c", ("a", "b")), {}, "x must be one of 'a', 'b', got 'c'"),
        (check_choice, ("c" * 100, ("a",)), {}, f"x must be one of 'a', got '{'c' * 59}"),
        (check_keys, ({"b": 1}, {"a", "b"}), {}, "x must have the keys ['a', 'b'], got ['b']"),
    ],
)
def test_values_out_of_range(check, arguments, options, message):
    with raises_exactly(ValueError, message):
        check("x", *arguments, **options)
