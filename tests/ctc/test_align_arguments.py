"""Arguments of align: accepted forms, errors, unchecked values, opcheck and compile."""

import pytest
import torch
from helpers.logits import DTYPES
from helpers.results import assert_bitwise_equal, raises_exactly
from reference.align import align_operator, check_alignment

from crnn_ext.ctc import Alignment, align


def test_align_unbatched(device):
    logits = torch.tensor([[0.0, 2, 0], [0.0, 2, 0], [2.0, 0, 0], [0.0, 0, 2]], device=device)
    for lengths in [(4, 2), ([4], [2]), (torch.tensor(4), torch.tensor([2]))]:
        result = align(logits, torch.tensor([1, 2], device=device), *lengths)
        assert result.tokens.tolist() == [1, 1, 0, 2]
        assert result.scores.dim() == 0
        assert (result.starts.tolist(), result.ends.tolist()) == ([0, 3], [2, 4])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_align_integer_dtypes(device, dtype):
    logits = torch.randn(6, 3, 4, device=device)
    targets, input_lengths, target_lengths = [[1, 2], [3, 1], [2, 2]], [6, 2, 3], [2, 1, 0]
    check_alignment(
        align(logits, *(torch.tensor(x, dtype=dtype) for x in (targets, input_lengths, target_lengths))),
        logits,
        [[1, 2], [3], []],
        input_lengths,
        columns=2,
    )
    strided = [
        torch.stack([torch.tensor(x, dtype=dtype)] * 2, -1).to(device)[..., 0]
        for x in (targets, input_lengths, target_lengths)
    ]
    check_alignment(align(logits, *strided), logits, [[1, 2], [3], []], input_lengths, columns=2)


def test_align_requires_grad(device):
    logits = torch.randn(5, 2, 4, device=device, requires_grad=True)
    result = align(logits, [[1, 2], [3, 3]], [5, 5], [2, 2])
    assert not any(field.requires_grad for field in result)
    check_alignment(result, logits.detach(), [[1, 2], [3, 3]], [5, 5])


LOGITS = torch.zeros(4, 2, 3)
TARGETS = [[1, 2], [2, 1]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1.0], TARGETS, [4, 4], [2, 2]), {}, TypeError, "logits must be a tensor, got list"),
        (
            (LOGITS, TARGETS, [4, 4], [2, 2]),
            {"blank": 3},
            ValueError,
            "blank must be in [0, 3), got 3",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [2, 2]),
            {"input_type": "probs"},
            ValueError,
            "input_type must be one of 'logits', 'log_probs', got 'probs'",
        ),
        (
            (LOGITS, [[1, 2]], [4, 4], [2, 2]),
            {},
            ValueError,
            "targets must be (N=2, S) or 1-D concatenated, got shape (1, 2)",
        ),
        (
            (LOGITS[:, 0], TARGETS, 4, 2),
            {},
            ValueError,
            "targets must be (S,) for unbatched logits, got shape (2, 2)",
        ),
        (
            (LOGITS, TARGETS, [4, 4, 4], [2, 2]),
            {},
            ValueError,
            "input_lengths must have shape (N=2,), got shape (3,)",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [2.0, 2.0]),
            {},
            TypeError,
            "target_lengths must have an integer dtype, got torch.float32",
        ),
        (
            (LOGITS, TARGETS, [4, 5], [2, 2]),
            {},
            ValueError,
            "align: input_lengths[1] is 5, but logits has T=4 frames",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [2, 3]),
            {},
            ValueError,
            "align: target_lengths[1] is 3, but targets has S=2 columns",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [2, -1]),
            {},
            ValueError,
            "align: target_lengths[1] is -1, but a length cannot be negative",
        ),
        (
            (LOGITS, [1, 2, 1], [4, 4], [1, 1]),
            {},
            ValueError,
            "align: target_lengths adds up to 2, but concatenated targets has 3 labels",
        ),
        (
            (LOGITS, [[1, 2], [2, 3]], [4, 4], [2, 2]),
            {},
            ValueError,
            "align: targets[1, 1] is 3, but logits has C=3 classes",
        ),
        (
            (LOGITS, [[1, 2], [2, 0]], [4, 4], [2, 2]),
            {},
            ValueError,
            "align: targets[1, 1] is 0, which is the blank",
        ),
    ],
)
def test_align_errors(arguments, options, error, message):
    with raises_exactly(error, message):
        align(*arguments, **options)


def test_align_errors_name_the_text():
    targets = torch.tensor([[1], [2], [1], [5]])
    with pytest.raises(RuntimeError, match=r"align: targets\[1, 1, 0\] is 5, but logits has C=3 classes"):
        align_operator(LOGITS, targets, torch.tensor([4, 4]), torch.tensor([1, 1, 1, 1]))
    with pytest.raises(RuntimeError, match="the number of target_lengths must be a multiple of N=2"):
        align_operator(LOGITS, targets[:3], torch.tensor([4, 4]), torch.tensor([1, 1, 1]))


@pytest.mark.parametrize("device", ["cuda_on_host", "cuda"], indirect=True)
@pytest.mark.parametrize("concatenated", [False, True])
def test_align_gpu_invalid_values_give_nan(device, concatenated):
    """Invalid values make the score NaN; in concatenated targets, also the scores after a wrong length."""
    logits = torch.randn(4, 6, 5, device=device)
    targets = [[1, 2], [5, 1], [1, 0], [1, 2], [2, 3], [1, 2]]
    input_lengths, target_lengths = [4, 4, 4, 5, 4, 4], [2, 2, 2, 2, 3, 2]
    indices = [torch.tensor(x, device=device) for x in (targets, input_lengths, target_lengths)]
    if concatenated:
        indices[0] = indices[0].flatten()
        indices[2][4] = -1
    result = align(logits, *indices)
    invalid = [False, True, True, True, True, concatenated]
    assert result.scores.isnan().tolist() == invalid
    for field in (result.tokens, result.starts, result.ends, result.peaks):
        assert (field[invalid] == -1).all()
        assert not (field[0] == -1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_align_opcheck(device, dtype):
    logits = torch.randn(5, 2, 4, device=device, dtype=dtype)
    lengths = torch.tensor([5, 3], device=device), torch.tensor([3, 1, 0, 2], device=device)
    padded = torch.tensor([[1, 2, 2], [3, 1, 1], [1, 1, 1], [2, 3, 1]], device=device)
    for targets in (padded, torch.tensor([1, 2, 2, 3, 2, 3], device=device)):
        for normalize in (True, False):
            torch.library.opcheck(torch.ops.crnn_ext.align.default, (logits, targets, *lengths, 0, normalize))


@pytest.mark.parametrize("targets", [[[1, 2], [3, 1]], [1, 2, 3, 1]])
def test_align_compile(device, targets):
    compiled = torch.compile(align, fullgraph=True, backend="aot_eager")
    logits = torch.randn(5, 2, 4, device=device)
    indices = [torch.tensor(x, device=device) for x in (targets, [5, 3], [2, 2])]
    result = compiled(logits, *indices, blank=0)
    assert isinstance(result, Alignment)
    assert_bitwise_equal(result, align(logits, *indices))
