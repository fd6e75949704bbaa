"""ctc_loss and CTCLoss against brute force and torch.nn.functional.ctc_loss in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import crnn_ext.ops  # noqa: F401
from crnn_ext.ctc import CTCLoss, ctc_loss


def torch_loss(logits, targets, input_lengths, target_lengths, blank=0, zero_infinity=False):
    """Losses (N,) and the gradient of their sum, in float64."""
    x = logits.detach().double().requires_grad_()
    losses = F.ctc_loss(
        F.log_softmax(x, -1), targets, input_lengths, target_lengths, blank, "none", zero_infinity
    )
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient


def our_loss(logits, *arguments, **options):
    x = logits.detach().clone().requires_grad_()
    losses = ctc_loss(x, *arguments, reduction="none", **options)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient


def brute_force(logits, target, blank):
    """Minus the logarithm of the summed probability of all C^T paths."""
    log_probs = F.log_softmax(logits.double(), -1)
    frames, classes = log_probs.shape
    total = 0.0
    for path in itertools.product(range(classes), repeat=frames):
        collapsed = [label for label, _ in itertools.groupby(path) if label != blank]
        if collapsed == target:
            total += math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path)))
    return -math.log(total) if total > 0 else math.inf


@st.composite
def batches(draw):
    frames, samples = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    classes = draw(st.integers(2, 40))
    blank = draw(st.integers(0, classes - 1))
    longest = draw(st.integers(0, 36))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(frames, samples, classes, generator=generator) * draw(
        st.sampled_from([0.1, 3.0, 20.0])
    )
    labels = torch.randint(0, classes - 1, (samples, longest), generator=generator)
    targets = torch.where(labels >= blank, labels + 1, labels)
    input_lengths = torch.randint(0, frames + 1, (samples,), generator=generator)
    target_lengths = torch.randint(0, longest + 1, (samples,), generator=generator)
    return logits, targets, input_lengths, target_lengths, blank


@settings(deadline=None, max_examples=200)
@given(batches(), st.sampled_from(["contiguous", "batch first", "class stride"]), st.booleans())
def test_equals_torch(batch, layout, concatenated):
    logits, targets, input_lengths, target_lengths, blank = batch
    ours = logits
    if layout == "batch first":
        ours = logits.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "class stride":
        ours = torch.stack([logits, logits + 7], -1)[..., 0]
    given_targets = targets
    if concatenated:
        given_targets = torch.cat([row[:length] for row, length in zip(targets, target_lengths, strict=True)])
    # torch's own gradient is NaN only for impossible samples; those are compared as zeros.
    expected, expected_gradient = torch_loss(
        logits, targets, input_lengths, target_lengths, blank, zero_infinity=True
    )
    x = ours.detach().requires_grad_()
    losses = ctc_loss(x, given_targets, input_lengths, target_lengths, blank, "none", zero_infinity=True)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    torch.testing.assert_close(losses.double(), expected, rtol=2e-6, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("target", [[], [1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1]])
@pytest.mark.parametrize("blank", [0, 2])
def test_equals_brute_force(target, blank):
    swap = {0: blank, blank: 0}
    target = [swap.get(label, label) for label in target]
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) * 2
    loss = ctc_loss(logits, torch.tensor(target, dtype=torch.long), 5, len(target), blank, "none")
    assert float(loss) == pytest.approx(brute_force(logits, target, blank), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "blank_offset"),
    [((26, 64, 37, 8), 0), ((160, 8, 97, 40), 0), ((500, 2, 32, 120), 0), ((590, 2, 64, 90), 30)],
)
def test_accuracy_of_float32(shape, blank_offset):
    frames, samples, classes, length = shape
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(frames, samples, classes, generator=generator) * 3
    logits[..., 0] += blank_offset
    targets = torch.randint(1, classes, (samples, length), generator=generator)
    lengths = torch.full((samples,), frames), torch.full((samples,), length)
    expected, expected_gradient = torch_loss(logits, targets, *lengths)
    losses, gradient = our_loss(logits, targets, *lengths)
    assert ((losses - expected).abs() / expected).max() < 1e-6
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 5e-6


def test_gradcheck():
    logits = torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 1], [3, 2]])
    for reduction in ("none", "mean", "sum"):
        loss = lambda x, r=reduction: ctc_loss(x, targets, [6, 4], [2, 1], reduction=r)  # noqa: E731
        assert torch.autograd.gradcheck(loss, (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    logits = (torch.randn(20, 3, 17) * 3).to(dtype)
    arguments = torch.randint(1, 17, (3, 5)), [20, 18, 12], [5, 4, 0]
    expected, expected_gradient = torch_loss(logits, arguments[0], *map(torch.tensor, arguments[1:]))
    losses, gradient = our_loss(logits, *arguments)
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=0)
    # The reference itself works with logarithms of about 60, whose ulp in float64 is 1e-14.
    atol = 1e-13 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=atol)


def test_edge_cases():
    x = torch.randn(6, 4, 5)
    x[3:, 0] = float("nan")  # padding frames are never read
    x[2, 1, 4] = float("nan")  # a live frame
    targets = torch.tensor([[1, 2], [1, 2], [3, 3], [1, 2]])
    losses, gradient = our_loss(x, targets, [3, 6, 2, 6], [2, 2, 2, 2])
    assert losses[0].isfinite()
    assert losses[3].isfinite()
    assert losses[1].isnan()
    assert losses[2] == math.inf
    assert (gradient[3:, 0] == 0).all()
    assert gradient[:, 1].isnan().all()
    assert gradient[:2, 2].isnan().all()
    assert (gradient[2:, 2] == 0).all()
    zeroed, gradient = our_loss(x, targets, [3, 6, 2, 6], [2, 2, 2, 2], zero_infinity=True)
    assert zeroed[2] == 0
    assert (gradient[:, 2] == 0).all()
    assert zeroed[1].isnan()


@pytest.mark.parametrize("mask", [-math.inf, -1e30])
@pytest.mark.parametrize("masked", [0, 4])
def test_masked_class(mask, masked):
    x = torch.randn(8, 1, 5)
    x[..., masked] = mask
    losses, gradient = our_loss(x, torch.tensor([[1, 2, 3]]), [8], [3])
    assert losses.isfinite().all()
    assert (gradient[..., masked] == 0).all()
    assert our_loss(x[:1], torch.tensor([[masked or 1]]), [1], [1])[0].isfinite().all() == (masked == 0)


def test_empty():
    targets = torch.zeros(0, 0, dtype=torch.long)
    assert ctc_loss(torch.zeros(3, 0, 2), targets, [], [], reduction="sum") == 0
    assert ctc_loss(torch.zeros(3, 0, 2), targets, [], []).isnan()
    no_frames = torch.zeros(0, 2, 3)
    losses = ctc_loss(no_frames, torch.tensor([[1], [1]]), [0, 0], [0, 1], reduction="none")
    assert losses.tolist() == [0.0, math.inf]


def test_errors():
    x = torch.zeros(4, 2, 3)
    targets = torch.tensor([[1, 2], [1, 5]])
    with pytest.raises(ValueError, match=r"targets\[1, 1\] is 5, but logits has C=3 classes"):
        ctc_loss(x, targets, [4, 4], [2, 2])
    with pytest.raises(ValueError, match=r"input_lengths\[1\] is 5, but logits has T=4 frames"):
        ctc_loss(x, targets, [4, 5], [2, 1])
    with pytest.raises(ValueError, match="reduction must be one of"):
        ctc_loss(x, targets, [4, 4], [2, 1], reduction="average")
    with pytest.raises(TypeError, match="logits must be float16"):
        ctc_loss(x.long(), targets, [4, 4], [2, 1])
    losses = ctc_loss(x, targets, [4, 4], [2, 2], reduction="none", validate=False)
    assert losses[0].isfinite()
    assert losses[1].isnan()


def test_operator_contract():
    x = torch.randn(6, 2, 4, requires_grad=True)
    arguments = (x, torch.tensor([[1, 2], [3, 1]]), torch.tensor([6, 5]), torch.tensor([2, 1]), 0)
    for reduction in (0, 1, 2):
        torch.library.opcheck(
            torch.ops.crnn_ext.ctc_loss.default, (*arguments, reduction, False, True, True, True)
        )


def test_compile_and_second_derivative():
    x = torch.randn(6, 2, 4, requires_grad=True)
    arguments = torch.tensor([[1, 2], [3, 1]]), torch.tensor([6, 5]), torch.tensor([2, 1])
    module = CTCLoss()
    eager = torch.autograd.grad(module(x, *arguments), x)[0]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x, *arguments), x)[0], eager)
    (gradient,) = torch.autograd.grad(module(x, *arguments), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(gradient.sum(), x)
