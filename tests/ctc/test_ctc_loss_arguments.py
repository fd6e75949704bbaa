"""Arguments of ctc_loss: lengths, masks, NaN, empty inputs, dtypes, errors, unvalidated values."""

import math

import pytest
import torch
from helpers.logits import random_logits
from hypothesis import given
from hypothesis import strategies as st
from reference.ctc import batches, loss_and_grad, torch_loss_and_grad

from crnn_ext.ctc import CTCLoss, ctc_loss

NAN, INF = math.nan, math.inf


@given(batches(max_frames=12, max_target_length=8), st.randoms(use_true_random=False))
def test_ctc_loss_nan_stays_in_its_sample(device, batch, random):
    logits, _, input_lengths, *_ = batch
    logits = logits.to(device)
    losses, gradient = loss_and_grad(logits, *batch[1:])
    n = random.randrange(logits.shape[1])
    if input_lengths[n] == 0:
        return
    frames = int(input_lengths[n])
    changed = logits.clone()
    changed[random.randrange(frames), n, random.randrange(logits.shape[2])] = random.choice([NAN, INF])
    for zero_infinity in (False, True):
        new_losses, new_gradient = loss_and_grad(changed, *batch[1:], zero_infinity=zero_infinity)
        assert new_losses[n].isnan()
        assert new_gradient[:frames, n].isnan().all()
        assert (new_gradient[frames:, n] == 0).all()
        if not zero_infinity:
            others = torch.arange(len(losses)) != n
            torch.testing.assert_close(new_losses[others], losses[others], rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(
                new_gradient[:, others], gradient[:, others], rtol=0, atol=0, equal_nan=True
            )


def test_ctc_loss_impossible_samples(device):
    x = random_logits(5, 3, 4, device=device)
    # Three different labels need three frames; with a repeated label they need four.
    arguments = torch.tensor([[1, 2, 3], [1, 1, 2], [2, 1, 1]]), [3, 3, 5], [3, 3, 3]
    losses, gradient = loss_and_grad(x, *arguments)
    assert losses.isfinite().tolist() == [True, False, True]
    assert losses[1] == INF
    assert gradient[:3, 1].isnan().all()
    assert (gradient[3:, 1] == 0).all()
    assert gradient[:, [0, 2]].isfinite().all()
    zeroed, zeroed_gradient = loss_and_grad(x, *arguments, zero_infinity=True)
    assert zeroed[1] == 0
    assert (zeroed_gradient[:, 1] == 0).all()
    assert torch.equal(zeroed[[0, 2]], losses[[0, 2]])
    assert torch.equal(zeroed_gradient[:, [0, 2]], gradient[:, [0, 2]])


def test_ctc_loss_ignores_padding(device):
    x = random_logits(6, 2, 5, device=device)
    x[3:, 0] = NAN
    targets = torch.tensor([[1, 2, -1, 5], [3, 3, 99, 2**40]])
    losses, gradient = loss_and_grad(x, targets, [3, 6], [2, 2])
    expected, expected_gradient = torch_loss_and_grad(
        x[:3, :1].cpu(), targets[:1, :2], torch.tensor([3]), torch.tensor([2])
    )
    torch.testing.assert_close(losses[:1].double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient[:3, :1].double(), expected_gradient, rtol=0, atol=1e-6)
    assert (gradient[3:, 0] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "mask"),
    [
        *(
            (dtype, mask)
            for dtype in (torch.float16, torch.float32, torch.float64)
            for mask in ("-inf", "lowest")
        ),
        (torch.float32, "-1e30"),
        (torch.float64, "-1e30"),
    ],
)
@pytest.mark.parametrize("masked", [0, 4])
def test_ctc_loss_masked_class(device, dtype, mask, masked):
    x = random_logits(8, 1, 5, device=device).to(dtype)
    x[..., masked] = {"-inf": -INF, "lowest": torch.finfo(dtype).min, "-1e30": -1e30}[mask]
    losses, gradient = loss_and_grad(x, torch.tensor([[1, 2, 3]]), [8], [3])
    assert losses.isfinite().all()
    assert (gradient[..., masked] == 0).all()
    # The sum over paths is the same without the class.
    others = [c for c in range(5) if c != masked]
    if masked != 0:
        expected, expected_gradient = loss_and_grad(x[..., others], torch.tensor([[1, 2, 3]]), [8], [3])
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient[..., others], expected_gradient, rtol=0, atol=1e-3)
    # Every path needs the class, as a label or as the blank between equal labels.
    impossible, _ = loss_and_grad(x, torch.tensor([[1, 1, 4]]), [4], [3])
    if dtype == torch.float16 and mask == "lowest":
        assert 65504 <= impossible < 65600  # in the range of float32, not masked
    else:
        assert impossible == INF


def test_ctc_loss_fully_masked_frame(device):
    x = random_logits(4, 2, 3, device=device)
    x[1, 0] = -INF
    losses, gradient = loss_and_grad(x, torch.tensor([[1], [1]]), [4, 4], [1, 1])
    assert losses[0] == INF
    assert losses[1].isfinite()
    assert gradient[:, 0].isnan().all()
    assert gradient[:, 1].isfinite().all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_loss_empty_batches_and_targets(device, reduction):
    loss = ctc_loss(
        torch.zeros(3, 0, 2, device=device), torch.zeros(0, 0, dtype=torch.long), [], [], reduction=reduction
    )
    assert {"none": loss.shape == (0,), "mean": loss.isnan().all(), "sum": (loss == 0).all()}[reduction]

    x = torch.zeros(0, 2, 3, device=device, requires_grad=True)
    losses = ctc_loss(x, [[1], [1]], [0, 0], [0, 1], reduction="none")
    assert losses.tolist() == [0.0, INF]
    losses.sum().backward()
    assert x.grad.shape == (0, 2, 3)

    x = random_logits(4, 2, 3, device=device).requires_grad_()
    loss = ctc_loss(x, torch.zeros(2, 0, dtype=torch.int32), [4, 2], [0, 0], reduction=reduction)
    blanks = -x.log_softmax(-1)[..., 0]
    expected = torch.stack([blanks[:, 0].sum(), blanks[:2, 1].sum()])
    expected = {"none": expected, "mean": expected.mean(), "sum": expected.sum()}[reduction]
    torch.testing.assert_close(loss, expected)


def test_ctc_loss_single_class_is_blank(device):
    x = torch.zeros(3, 1, 1, device=device, requires_grad=True)
    loss = ctc_loss(x, torch.zeros(1, 0, dtype=torch.long), [3], [0])
    loss.backward()
    assert loss == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_loss_unbatched(device, reduction):
    x = random_logits(7, 1, 5, device=device)
    batched = ctc_loss(x, [[1, 2, 2]], [6], [3], reduction=reduction)
    for lengths in ((6, 3), (torch.tensor(6), torch.tensor(3)), ([6], torch.tensor([3], dtype=torch.uint8))):
        loss = ctc_loss(x[:, 0], torch.tensor([1, 2, 2]), *lengths, reduction=reduction)
        assert loss.shape == ()
        assert loss == batched.squeeze()


INTEGERS = [
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_ctc_loss_integer_dtypes(device, dtype):
    x = random_logits(7, 2, 5, device=device)
    expected = ctc_loss(x, [[1, 2], [3, 0]], [7, 5], [2, 1])
    targets = torch.tensor([[1, 2], [3, 0]], dtype=dtype)
    lengths = torch.tensor([7, 5], dtype=dtype), torch.tensor([2, 1], dtype=dtype)
    assert ctc_loss(x, targets, *lengths) == expected
    assert ctc_loss(x, targets.t().contiguous().t(), lengths[0], (2, 1)) == expected
    assert ctc_loss(x, torch.tensor([1, 2, 3], dtype=dtype), *lengths) == expected


def test_ctc_loss_expanded_grad_output(device):
    x = random_logits(6, 3, 4, device=device).requires_grad_()
    losses = ctc_loss(x, [[1], [2], [3]], [6, 6, 6], [1, 1, 1], reduction="none")
    (expanded,) = torch.autograd.grad(losses, x, torch.ones((), device=device).expand(3), retain_graph=True)
    (plain,) = torch.autograd.grad(losses, x, torch.ones(3, device=device))
    assert torch.equal(expanded, plain)


def free_memory(device):
    """The free memory of the device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except OSError:
        return 0


@pytest.mark.exhaustive
def test_ctc_loss_sizes_beyond_int32(device):
    if free_memory(device) < 10 * 2**30:
        pytest.skip("needs 10 GB of free memory")
    frames, classes = 2050, 1 << 20
    x = torch.zeros(frames, 1, classes, dtype=torch.bfloat16, device=device)
    x[-1, 0, -1] = 16
    loss = ctc_loss(x, [[classes - 1]], [frames], [1], reduction="none")
    # A path is a run of label frames; `frames` of the runs end at the last frame.
    paths = frames * (frames + 1) // 2 - frames + frames * math.exp(16)
    expected = (frames - 1) * math.log(classes) + math.log(classes - 1 + math.exp(16)) - math.log(paths)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


ERRORS = [
    ({"logits": [[1.0]]}, TypeError, "logits must be a tensor, got list"),
    (
        {"logits": torch.zeros(4, 2, 3, dtype=torch.long)},
        TypeError,
        "logits must be float16, bfloat16, float32 or float64, got torch.int64",
    ),
    ({"logits": torch.zeros(4)}, ValueError, "logits must be (T, N, C) or (T, C), got shape (4,)"),
    (
        {"logits": torch.zeros(4, 2, 0)},
        ValueError,
        "logits must have 1 to 2^20 classes, got shape (4, 2, 0)",
    ),
    ({"zero_infinity": None}, TypeError, "zero_infinity must be a bool, got NoneType"),
    ({"validate": "no"}, TypeError, "validate must be a bool or None, got str"),
    ({"reduction": []}, TypeError, "reduction must be a str, got list"),
    (
        {"input_lengths": [4.0, 4.0]},
        TypeError,
        "input_lengths must have an integer dtype, got torch.float32",
    ),
    (
        {"target_lengths": [True, True]},
        TypeError,
        "target_lengths must have an integer dtype, got torch.bool",
    ),
    (
        {"targets": [[1, 1.5], [1, 2]]},
        TypeError,
        "targets must have an integer dtype, got torch.float32",
    ),
    ({"blank": 3}, ValueError, "blank must be in [0, 3), got 3"),
    ({"blank": -1}, ValueError, "blank must be in [0, 3), got -1"),
    ({"blank": 1.0}, TypeError, "blank must be an int, got float"),
    (
        {"reduction": "average"},
        ValueError,
        "reduction must be one of 'none', 'mean', 'sum', got 'average'",
    ),
    (
        {"input_type": "probs"},
        ValueError,
        "input_type must be one of 'logits', 'log_probs', got 'probs'",
    ),
    (
        {"targets": torch.zeros(2, 2)},
        TypeError,
        "targets must have an integer dtype, got torch.float32",
    ),
    (
        {"targets": torch.zeros(3, 2, dtype=torch.long)},
        ValueError,
        "targets must be (N=2, S) or 1-D concatenated, got shape (3, 2)",
    ),
    ({"targets": [[1, 3], [1, 2]]}, ValueError, "targets[0, 1] is 3, but logits has C=3 classes"),
    ({"targets": [[1, 2], [-4, 2]]}, ValueError, "targets[1, 0] is -4, but logits has C=3 classes"),
    ({"targets": [[1, 2], [1, 0]]}, ValueError, "targets[1, 1] is 0, which is the blank"),
    ({"targets": [1, 2, 9, 1]}, ValueError, "targets[2] is 9, but logits has C=3 classes"),
    (
        {"targets": [1, 2, 1]},
        ValueError,
        "target_lengths[1] is 2, but concatenated targets has only 1 labels left of 3",
    ),
    (
        {"targets": [1, 2, 1, 1, 1]},
        ValueError,
        "target_lengths adds up to 4, but concatenated targets has 5 labels",
    ),
    ({"input_lengths": [4, 5]}, ValueError, "input_lengths[1] is 5, but logits has T=4 frames"),
    ({"input_lengths": [-1, 4]}, ValueError, "input_lengths[0] is -1, but logits has T=4 frames"),
    ({"input_lengths": [4]}, ValueError, "input_lengths must have shape (N=2,), got shape (1,)"),
    (
        {"input_lengths": torch.ones(2)},
        TypeError,
        "input_lengths must have an integer dtype, got torch.float32",
    ),
    ({"target_lengths": [2, 3]}, ValueError, "target_lengths[1] is 3, but targets has S=2 columns"),
    ({"target_lengths": [2, -1]}, ValueError, "target_lengths[1] is -1, but a length cannot be negative"),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS, ids=[row[2] for row in ERRORS])
def test_ctc_loss_errors(device, change, error, message):
    arguments = {
        "logits": torch.zeros(4, 2, 3, device=device),
        "targets": [[1, 2], [1, 2]],
        "input_lengths": [4, 4],
        "target_lengths": [2, 2],
    } | change
    with pytest.raises(error) as raised:
        ctc_loss(**arguments)
    assert str(raised.value).removeprefix("ctc_loss: ") == message


@pytest.mark.parametrize(
    "change",
    [
        {"targets": [[1, 2], [1, 3]]},
        {"targets": [[1, 2], [1, 0]]},
        {"targets": [[1, 2], [1, -9]]},
        {"targets": [1, 2, 1]},
        {"input_lengths": [4, 5]},
        {"input_lengths": [4, -1]},
        {"target_lengths": [2, 2**40]},
        {"target_lengths": [2, -1]},
    ],
)
def test_ctc_loss_unvalidated_values_give_nan(device, change):
    arguments = {"targets": [[1, 2], [1, 2]], "input_lengths": [4, 4], "target_lengths": [2, 2]} | change
    logits = random_logits(4, 2, 3, device=device)
    losses, gradient = loss_and_grad(logits, *arguments.values(), validate=False)
    valid, valid_gradient = loss_and_grad(logits[:, :1], [[1, 2]], [4], [2])
    assert losses[0] == valid[0]
    assert torch.equal(gradient[:, 0], valid_gradient[:, 0])
    assert losses[1].isnan()
    assert gradient[:, 1].isnan().all()


@pytest.mark.parametrize("change", [{"targets": [[1, 2], [1, 3]]}, {"target_lengths": [2, 3]}])
def test_ctc_loss_unvalidated_values_keep_padding_gradient_zero(device, change):
    arguments = {"targets": [[1, 2], [1, 2]], "input_lengths": [6, 4], "target_lengths": [2, 2]} | change
    logits = random_logits(6, 2, 3, device=device)
    for zero_infinity in (False, True):
        losses, gradient = loss_and_grad(
            logits, *arguments.values(), validate=False, zero_infinity=zero_infinity
        )
        assert losses.isnan().tolist() == [False, True]
        assert gradient[:4, 1].isnan().all()
        assert (gradient[4:, 1] == 0).all()


@pytest.mark.parametrize("lengths", [[9, 1, 2], [-1, 1, 2]])
def test_ctc_loss_unvalidated_length_of_concatenated_targets(device, lengths):
    logits = random_logits(4, 3, 3, device=device)
    losses, _ = loss_and_grad(logits, [1, 2, 1, 1], [4, 4, 4], lengths, validate=False)
    assert losses.isnan().all()


def test_ctc_loss_blank_far_below_peak(device):
    x = torch.tensor([[0.0, 9.5, 3000.0]] * 3, dtype=torch.float64).unsqueeze(1)
    expected, expected_gradient = torch_loss_and_grad(
        x, torch.tensor([[1]]), torch.tensor([3]), torch.tensor([1])
    )
    losses, gradient = loss_and_grad(x.float().to(device), [[1]], [3], [1])
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-6)
    assert (gradient[[0, 2], 0, 0] < 0).all()  # the blank before and after the label


def test_ctc_loss_masked_blank_in_many_frames(device):
    x = random_logits(100_000, 1, 4, device=device) * 0.01
    x[..., 0] = -INF
    losses, gradient = loss_and_grad(x, [[1, 2, 3]], [100_000], [3])
    assert losses.isfinite().all()
    assert (gradient[..., 0] == 0).all()


def test_ctc_loss_module_options(device):
    x = random_logits(4, 1, 3, device=device)
    module = CTCLoss(blank=2, reduction="sum", zero_infinity=True, input_type="log_probs", validate=False)
    assert module(x, [[0, 0]], [2], [2]) == 0
    assert module(x, [[2]], [4], [1]).isnan()
    assert module(x, [[1]], [4], [1]) == ctc_loss(x, [[1]], [4], [1], 2, "sum", input_type="log_probs")
    options = "blank=2, reduction='sum', zero_infinity=True, input_type='log_probs', validate=False"
    assert repr(module) == f"CTCLoss({options})"
