"""Checks of results that the tests of all operators share."""

import re

import pytest
import torch


def assert_fields(result, device, expected):
    """Compares dtype, shape and device of the fields; expected: {name: (dtype, shape)}."""
    for name, (dtype, shape) in expected.items():
        field = getattr(result, name)
        assert (field.dtype, tuple(field.shape), field.device) == (dtype, shape, device), name
        assert not field.requires_grad, name


def assert_bitwise_equal(result, expected):
    for a, b in zip(result, expected, strict=True):
        assert torch.equal(a, b)


def assert_equal_for_any_thread_count(compute, counts=(1, 4)):
    """Compares the results of `compute`, a sequence of tensors, bit by bit."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(compute())
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert_bitwise_equal(result, results[0])


def raises_exactly(error, message):
    """`pytest.raises` for an error whose whole message is given."""
    return pytest.raises(error, match=rf"\A{re.escape(message)}\Z")
