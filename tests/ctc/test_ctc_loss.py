"""Values and gradients of ctc_loss: against torch in float64, brute force, known values, invariances."""

import functools
import math

import pytest
import torch
from helpers.logits import LAYOUTS, with_layout
from helpers.results import assert_equal_for_any_thread_count
from hypothesis import given
from hypothesis import strategies as st
from reference.ctc import batches, brute_force, loss_and_grad, torch_loss_and_grad
from torch.testing._internal.common_nn import ctcloss_reference

from crnn_ext.ctc import CTCLoss, ctc_loss


@given(batches(), st.sampled_from(LAYOUTS), st.booleans(), st.integers(0, 2**31))
def test_ctc_loss_equals_torch(device, batch, layout, concatenated, seed):
    logits, targets, input_lengths, target_lengths, blank = batch
    weights = torch.rand(len(input_lengths), generator=torch.Generator().manual_seed(seed))
    arguments = targets, input_lengths, target_lengths, blank
    # zero_infinity avoids torch's NaN gradients of impossible samples.
    expected, expected_gradient = torch_loss_and_grad(logits, *arguments, zero_infinity=True, weights=weights)
    if concatenated:
        rows = [row[:length] for row, length in zip(targets, target_lengths, strict=True)]
        arguments = (torch.cat(rows), *arguments[1:])
    losses, gradient = loss_and_grad(
        with_layout(logits.to(device), layout), *arguments, zero_infinity=True, weights=weights
    )
    torch.testing.assert_close(losses.double(), expected, rtol=2e-6, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-5, atol=2e-6)


@given(batches(), st.sampled_from([torch.float16, torch.bfloat16, torch.float64]), st.sampled_from(LAYOUTS))
def test_ctc_loss_equals_torch_in_other_dtypes(device, batch, dtype, layout):
    logits, *arguments = batch
    logits = with_layout(logits.to(device, dtype), layout)
    expected, expected_gradient = torch_loss_and_grad(logits.cpu(), *arguments, zero_infinity=True)
    losses, gradient = loss_and_grad(logits, *arguments, zero_infinity=True)
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    is_dense = layout in ("contiguous", "batch first", "classes first")
    assert gradient.stride() == logits.stride() or not is_dense
    rtol, atol = (1e-12, 1e-11) if dtype == torch.float64 else (2e-6, 1e-5)
    torch.testing.assert_close(losses.double(), expected, rtol=rtol, atol=atol)
    # One rounding to the dtype; in float64, the error of the reference, whose logarithms are in the hundreds.
    atol = 1e-11 if dtype == torch.float64 else torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=atol)


@given(batches())
def test_ctc_loss_log_probs_not_normalized(device, batch):
    logits, *arguments = batch
    log_probs = logits.double().log_softmax(-1)
    expected, softmax_minus_posterior = torch_loss_and_grad(logits, *arguments, zero_infinity=True)
    on_device = log_probs.to(device)
    losses, gradient = loss_and_grad(on_device, *arguments, zero_infinity=True, input_type="log_probs")
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-10)
    # softmax - posterior on the valid frames of possible samples, 0 elsewhere.
    valid = (softmax_minus_posterior != 0).any(-1, keepdim=True) | (gradient != 0).any(-1, keepdim=True)
    torch.testing.assert_close(
        gradient + valid * log_probs.exp(), softmax_minus_posterior, rtol=0, atol=1e-10
    )
    # Not normalized: a constant added to all log-probabilities shifts the loss.
    shifted, _ = loss_and_grad(on_device + 0.25, *arguments, input_type="log_probs")
    plain, _ = loss_and_grad(on_device, *arguments, input_type="log_probs")
    frames = arguments[1].double()
    torch.testing.assert_close(shifted, plain - 0.25 * frames, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("target", [[], [1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1], [1, 2, 2]])
@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_ctc_loss_equals_brute_force(device, target, blank, frames):
    swap = {0: blank, blank: 0}
    target = [swap.get(label, label) for label in target]
    logits = torch.randn(frames, 3, generator=torch.Generator().manual_seed(1)) * 2
    targets = torch.tensor(target, dtype=torch.long)
    loss = ctc_loss(logits.to(device), targets, frames, len(target), blank, "none")
    assert float(loss) == pytest.approx(brute_force(logits, target, blank), rel=1e-6)


# Probabilities and losses from the basic test of TensorFlow's ctc_loss; the blank is the last class.
TENSORFLOW = [
    (
        [
            [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
        [0, 1, 2, 1, 0],
        3.34211,
    ),
    (
        [
            [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
            [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ],
        [0, 1, 1, 0],
        5.42262,
    ),
]


@pytest.mark.parametrize(("probabilities", "target", "loss"), TENSORFLOW)
def test_ctc_loss_known_values_of_tensorflow(device, probabilities, target, loss):
    logits = torch.tensor(probabilities, device=device).log()
    actual = ctc_loss(logits, target, 5, len(target), blank=5, reduction="none")
    assert float(actual) == pytest.approx(loss, rel=2e-6)


@pytest.mark.parametrize(
    ("logits", "target", "loss"),
    [
        (torch.zeros(1, 5), [1], 1.6094379),
        (torch.arange(1.0, 16).view(3, 5), [3, 3], 7.3557429),
        (torch.arange(-15.0, 0).view(3, 5).flip(0), [2, 3], 4.9388504),
    ],
)
def test_ctc_loss_known_values_of_warp_ctc(device, logits, target, loss):
    actual = ctc_loss(logits.to(device), target, len(logits), len(target), reduction="none")
    assert float(actual) == pytest.approx(loss, rel=4e-7)


def test_ctc_loss_known_value_and_gradient_of_nemo(device):
    logits = torch.full((6, 1, 5), 0.1)
    for t, c, value in [(0, 1, 0.6), (1, 2, 0.6), (2, 2, 0.2), (2, 3, 0.8), (3, 1, 0.6), (4, 2, 0.2)]:
        logits[t, 0, c] = value
    logits[5, 0, 0], logits[5, 0, 2] = 0.7, 0.2
    losses, gradient = loss_and_grad(logits.to(device), torch.tensor([[1, 2, 3]]), [6], [3])
    # Error bound in ulps of float32: per emission 2 for exp2, 4 for the softmax sum, 1 for products, and 1.5
    # per step of the recursion; 6 frames of 8.5 * 2^-23 give 6.1e-6.
    assert float(losses) == pytest.approx(5.0279555, abs=6.1e-6)
    first_and_last = torch.tensor(
        [
            [0.00157518, -0.53266853, 0.17703111, 0.17703111, 0.17703111],
            [-0.22203964, 0.1687112, 0.18645471, -0.30183747, 0.1687112],
        ]
    )
    torch.testing.assert_close(gradient[[0, 5], 0], first_and_last, rtol=0, atol=5e-7)


def test_ctc_loss_two_frames_by_hand(device):
    logits = torch.tensor([[0.6, 0.4]] * 2, device=device).log()
    assert float(ctc_loss(logits, [], 2, 0, reduction="none").neg().exp()) == pytest.approx(0.36)
    assert float(ctc_loss(logits, [1], 2, 1, reduction="none").neg().exp()) == pytest.approx(0.64)


@pytest.mark.parametrize(("frames", "classes"), [(1, 2), (7, 5), (300, 80)])
def test_ctc_loss_closed_form_of_uniform_logits(device, frames, classes):
    loss = ctc_loss(torch.zeros(frames, classes, device=device), [1], frames, 1, reduction="none")
    paths = frames * (frames + 1) / 2
    assert float(loss) == pytest.approx(frames * math.log(classes) - math.log(paths), rel=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_loss_reductions(device, reduction):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(12, 3, 6, generator=generator, dtype=torch.float64)
    arguments = torch.randint(1, 6, (3, 4), generator=generator), [12, 11, 9], [4, 1, 2]
    expected = ctcloss_reference(logits.log_softmax(-1), *arguments, blank=0, reduction=reduction)
    for ours in (functools.partial(ctc_loss, reduction=reduction), CTCLoss(reduction=reduction)):
        torch.testing.assert_close(ours(logits.to(device), *arguments).cpu(), expected.squeeze())


# Every SIMD vector length, more than one vector each; on a GPU, every kernel size for targets and rows.
SHAPES = [
    (26, 64, 37, 8),
    (160, 8, 97, 40),
    (500, 2, 32, 120),
    (300, 2, 20, 200),
    (520, 1, 12, 400),
    (700, 1, 8, 600),
    (701, 1, 8, 600),
    (40, 2, 5000, 15),
    (300, 1, 20, 17),
]


@pytest.mark.parametrize(
    ("shape", "blank_offset"), [*((shape, 0) for shape in SHAPES), ((590, 2, 64, 90), 30)]
)
def test_ctc_loss_accuracy_of_float32(device, shape, blank_offset):
    frames, samples, classes, length = shape
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(frames, samples, classes, generator=generator) * 3
    logits[..., 0] += blank_offset
    targets = torch.randint(1, classes, (samples, length), generator=generator)
    lengths = torch.full((samples,), frames), torch.full((samples,), length)
    expected, expected_gradient = torch_loss_and_grad(logits, targets, *lengths)
    losses, gradient = loss_and_grad(logits.to(device), targets, *lengths)
    assert ((losses - expected).abs() / expected).max() < 1e-6
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 5e-6


def test_ctc_loss_accuracy_over_2_20_classes(device):
    """With equal terms, all rounding errors have the same sign."""
    x = torch.full((2, 1, 1 << 20), math.log(0.2457))
    x[..., :1024] = 0
    expected = -2 * (x[0, 0, 1].double() - x[0, 0].double().logsumexp(0)) - math.log(3)
    loss = ctc_loss(x.to(device), [[1]], [2], [1], reduction="none")
    assert float(loss) == pytest.approx(float(expected), abs=4e-5)


def test_ctc_loss_accuracy_with_logit_offset(device):
    logits = torch.randn(30, 1, 8, generator=torch.Generator().manual_seed(3))
    for offset in (0.0, 4096.0, -4096.0):
        shifted = logits + offset  # the reference gets the rounded sums too
        expected, expected_gradient = torch_loss_and_grad(shifted, torch.tensor([[1, 2, 2]]), [30], [3])
        losses, gradient = loss_and_grad(shifted.to(device), torch.tensor([[1, 2, 2]]), [30], [3])
        torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
def test_ctc_loss_gradcheck(device, reduction, input_type):
    logits = torch.randn(6, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
    targets = torch.tensor([[1, 1], [3, 2], [0, 0]])

    def loss(x):
        return ctc_loss(x, targets, [6, 4, 3], [2, 1, 0], reduction=reduction, input_type=input_type)

    assert torch.autograd.gradcheck(loss, (logits,))


@given(batches(), st.data())
def test_ctc_loss_invariances(device, batch, data):
    logits, targets, input_lengths, target_lengths, blank = batch
    logits = logits.to(device)
    frames, samples, classes = logits.shape
    losses, gradient = loss_and_grad(logits, *batch[1:], zero_infinity=True)

    order = torch.tensor(data.draw(st.permutations(range(samples))))
    permuted = loss_and_grad(
        logits[:, order],
        targets[order],
        input_lengths[order],
        target_lengths[order],
        blank,
        zero_infinity=True,
    )
    # Not bitwise: on a GPU, the order of additions within a row depends on the alignment of its address.
    torch.testing.assert_close(permuted[0], losses[order], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(permuted[1], gradient[:, order], rtol=0, atol=1e-6)

    padding = torch.full((3, samples, classes), math.nan, device=device)
    columns = torch.full((samples, 2), -7)
    padded = loss_and_grad(
        torch.cat([logits, padding]), torch.cat([targets, columns], 1), *batch[2:], zero_infinity=True
    )
    assert torch.equal(padded[0], losses)
    assert torch.equal(padded[1][:frames], gradient)
    assert (padded[1][frames:] == 0).all()

    new_class = torch.tensor(data.draw(st.permutations(range(classes))))
    new_logits = torch.empty_like(logits)
    new_logits[..., new_class] = logits
    relabeled = loss_and_grad(
        new_logits,
        new_class[targets],
        input_lengths,
        target_lengths,
        int(new_class[blank]),
        zero_infinity=True,
    )
    torch.testing.assert_close(relabeled[0], losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(relabeled[1][..., new_class], gradient, rtol=0, atol=1e-6)

    # A constant added to each frame, without rounding.
    constants = torch.randint(-8, 9, (frames, samples, 1), device=device) * 64.0
    doubles = logits.double()
    shifted = loss_and_grad(doubles + constants, *batch[1:], zero_infinity=True)
    exact = loss_and_grad(doubles, *batch[1:], zero_infinity=True)
    torch.testing.assert_close(shifted[0], exact[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(shifted[1], exact[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(90, 8, 40, 20), (400, 1, 3000, 12), (64, 2, 300, 30)])
def test_ctc_loss_bitwise_equal_for_any_thread_count(device, shape):
    frames, samples, classes, length = shape
    logits = torch.randn(frames, samples, classes, device=device)
    arguments = torch.randint(1, classes, (samples, length)), [frames] * samples, [length] * samples
    assert_equal_for_any_thread_count(lambda: loss_and_grad(logits, *arguments), counts=(1, 2, 3, 7))
