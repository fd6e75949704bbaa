"""log_probability against torch's loss in float64."""

import math

import pytest
import torch
from helpers.logits import DTYPES, LAYOUTS, logits_beyond_32_bit_offsets, score_dtype, with_layout
from helpers.results import assert_equal_for_any_thread_count, raises_exactly
from hypothesis import given
from hypothesis import strategies as st
from reference.ctc import brute_force, no_synchronization, torch_loss_and_grad

from crnn_ext.ctc import ctc_loss, log_probability

INF, NAN = math.inf, math.nan


def reference(logits, targets, input_lengths, target_lengths, blank=0):
    """(N, K) log-probabilities by torch, one call for each k; -inf for a length of -1."""
    log_p = []
    for k in range(targets.shape[1]):
        lengths = target_lengths[:, k]
        losses, _ = torch_loss_and_grad(logits, targets[:, k], input_lengths, lengths.clamp(min=0), blank)
        log_p.append((-losses).masked_fill(lengths == -1, -INF))
    return torch.stack(log_p, 1) if log_p else torch.zeros(logits.shape[1], 0, dtype=torch.float64)


@st.composite
def problems(draw):
    """(logits, targets (N, K, S), input_lengths, target_lengths (N, K), blank); some texts are missing."""
    frames, samples, texts = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.integers(0, 5))
    classes, columns = draw(st.integers(2, 30)), draw(st.integers(0, 20))
    blank = draw(st.integers(0, classes - 1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(frames, samples, classes, generator=generator) * draw(
        st.sampled_from([0.1, 3.0, 20])
    )
    distinct = min(classes - 1, draw(st.sampled_from([2, 40])))  # two labels are often repeated
    labels = torch.randint(0, distinct, (samples, texts, columns), generator=generator)
    targets = torch.where(labels >= blank, labels + 1, labels)
    input_lengths = torch.randint(0, frames + 1, (samples,), generator=generator)
    target_lengths = torch.randint(-1, columns + 1, (samples, texts), generator=generator)
    return logits.to(draw(st.sampled_from(DTYPES))), targets, input_lengths, target_lengths, blank


@given(problems(), st.sampled_from(LAYOUTS), st.booleans())
def test_log_probability_equals_torch(device, problem, layout, normalized):
    logits, *indices, blank = problem
    if normalized:
        logits = logits.double().log_softmax(-1)
    strided = with_layout(logits.to(device), layout)
    device_indices = [tensor.to(device) for tensor in indices]
    with no_synchronization(device):
        log_p = log_probability(
            strided, *device_indices, blank=blank, input_type="log_probs" if normalized else "logits"
        )
    dtype = score_dtype(logits)
    assert (log_p.dtype, log_p.shape, log_p.device) == (dtype, indices[0].shape[:2], strided.device)
    tolerance = 1e-10 if dtype == torch.float64 else 3e-6
    expected = reference(logits, *indices, blank)
    torch.testing.assert_close(log_p.double().cpu(), expected, rtol=tolerance, atol=tolerance)


def test_log_probability_equals_brute_force(device):
    logits = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0))
    texts = [[], [1], [2], [1, 1], [1, 2], [2, 1, 2], [1, 2, 2, 1]]
    targets = torch.tensor([[text + [0] * (4 - len(text)) for text in texts]])
    lengths = torch.tensor([[len(text) for text in texts]])
    log_p = log_probability(logits.to(device), targets.to(device), [4], lengths.to(device))
    expected = [-brute_force(logits[:, 0], text, 0) for text in texts]
    assert log_p[0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
@pytest.mark.parametrize("samples", [1, 5])
def test_log_probability_bitwise_equals_ctc_loss(device, samples, input_type):
    generator = torch.Generator().manual_seed(samples)
    logits = torch.randn(60, samples, 25, generator=generator).to(device)
    targets = torch.randint(1, 25, (samples, 4, 9), generator=generator).to(device)
    input_lengths = torch.randint(20, 61, (samples,), generator=generator).to(device)
    target_lengths = torch.randint(0, 10, (samples, 4), generator=generator).to(device)
    log_p = log_probability(logits, targets, input_lengths, target_lengths, input_type=input_type)
    for k in range(4):
        arguments = logits, targets[:, k], input_lengths, target_lengths[:, k]
        assert torch.equal(log_p[:, k], -ctc_loss(*arguments, reduction="none", input_type=input_type))


@pytest.mark.parametrize("length", [31, 32, 63, 64, 127, 128, 255, 256, 511, 512])
def test_log_probability_target_lengths_around_kernel_sizes(device, length):
    """On both sides of each boundary between kernels for different lengths."""
    generator = torch.Generator().manual_seed(length)
    logits = torch.randn(length + 30, 2, 9, generator=generator)
    targets = torch.randint(1, 9, (2, 2, length), generator=generator)
    lengths = torch.tensor([[length // 2, length], [length, 0]])
    frames = torch.tensor([length + 30, length + 25])
    log_p = log_probability(logits.to(device), targets.to(device), frames.to(device), lengths.to(device))
    expected = reference(logits, targets, frames, lengths)
    torch.testing.assert_close(log_p.double().cpu(), expected, rtol=3e-6, atol=0)


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
def test_log_probability_nan_and_inf(device, bad, input_type):
    """In logits, NaN or inf counts in any class; in log-probabilities, only in classes of the text."""
    logits = torch.zeros(5, 3, 6, device=device)
    logits[1, 1, 3] = bad
    logits[4, 2, 3] = bad
    log_p = log_probability(logits, [[[1, 3], [2, 1]]] * 3, [5, 5, 4], [[2, 2]] * 3, input_type=input_type)
    assert log_p.isnan().tolist() == [[False, False], [True, input_type == "logits"], [False, False]]


def test_log_probability_missing_and_impossible_texts(device):
    logits = torch.zeros(2, 3, 4, device=device)
    logits[0, 2] = NAN
    targets = torch.tensor([[[1, 2], [3, 3], [9, 9], [1, 0]]] * 3, device=device)
    log_p = log_probability(logits, targets, [2, 0, 2], [[2, 2, -1, 1], [2, 0, -1, 0], [1, 1, -1, 0]])
    assert log_p[0].tolist() == pytest.approx([-math.log(16), -INF, -INF, math.log(3 / 16)])
    assert log_p[1].tolist() == [-INF, 0, -INF, 0]
    assert log_p[2].isnan().tolist() == [True, True, False, True]
    assert log_p[2, 2] == -INF


def test_log_probability_unbatched(device):
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(4)).to(device)
    targets = torch.tensor([[1, 2], [3, 3], [4, 0]], device=device)
    single = log_probability(logits, targets, 6, [2, 2, 1])
    batch = log_probability(logits[:, None], targets[None], [6], [[2, 2, 1]])
    assert torch.equal(single, batch[0])


@pytest.mark.parametrize(
    ("shape", "texts", "columns"),
    [((0, 3, 5), 2, 2), ((4, 0, 5), 2, 2), ((4, 3, 5), 0, 2), ((4, 3, 5), 2, 0)],
)
def test_log_probability_empty(device, shape, texts, columns):
    frames, samples, _ = shape
    targets = torch.ones(samples, texts, columns, dtype=torch.long, device=device)
    lengths = torch.zeros(samples, texts, dtype=torch.long, device=device)
    frame_counts = torch.full((samples,), frames, device=device)
    log_p = log_probability(torch.zeros(shape, device=device), targets, frame_counts, lengths)
    expected = torch.full((samples, texts), -frames * math.log(5), device=device)
    torch.testing.assert_close(log_p, expected)


def test_log_probability_offsets_beyond_32_bits(device):
    logits = logits_beyond_32_bit_offsets(device)
    log_p = log_probability(logits, [[[3, 7], [7, 7]]], [2], [[2, 1]])
    targets, lengths = torch.tensor([[[3, 7], [7, 7]]]), torch.tensor([[2, 1]])
    expected = reference(logits.cpu(), targets, torch.tensor([2]), lengths)
    torch.testing.assert_close(log_p.double().cpu(), expected, rtol=1e-5, atol=1e-6)


def test_log_probability_requires_grad(device):
    logits = torch.randn(5, 2, 4, device=device, requires_grad=True)
    assert not log_probability(logits, [[[1, 2]], [[3, 3]]], [5, 5], [[2], [2]]).requires_grad


@pytest.mark.parametrize("samples", [1, 7])
def test_log_probability_bitwise_equal_for_any_thread_count(device, samples):
    generator = torch.Generator().manual_seed(samples)
    logits = torch.randn(90, samples, 300, generator=generator).to(device)
    targets = torch.randint(1, 300, (samples, 3, 20), generator=generator).to(device)
    lengths = torch.full((samples,), 90, device=device), torch.full((samples, 3), 20, device=device)
    assert_equal_for_any_thread_count(lambda: [log_probability(logits, targets, *lengths)])


LOGITS = torch.zeros(4, 2, 3)
TARGETS = [[[1, 2], [2, 1]], [[1, 1], [2, 2]]]
TWOS = [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (LOGITS, TARGETS, [4, 4], TWOS),
            {"validate": 1},
            TypeError,
            "validate must be a bool or None, got int",
        ),
        (
            (LOGITS, TARGETS[0], [4, 4], TWOS),
            {},
            ValueError,
            "targets must be (N=2, K, S), got shape (2, 2)",
        ),
        (
            (LOGITS[:, 0], TARGETS, 4, TWOS),
            {},
            ValueError,
            "targets must be (K, S), got shape (2, 2, 2)",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [2, 2]),
            {},
            ValueError,
            "target_lengths must be (N=2, K=2), got shape (2,)",
        ),
        (
            (LOGITS[:, 0], TARGETS[0], 4, [2]),
            {},
            ValueError,
            "target_lengths must be (K=2,), got shape (1,)",
        ),
        (
            (LOGITS, TARGETS, [4, 5], TWOS),
            {},
            ValueError,
            "log_probability: input_lengths[1] is 5, but logits has T=4 frames",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [[2, 2], [3, 2]]),
            {},
            ValueError,
            "log_probability: target_lengths[1, 0] is 3, but targets has S=2 columns",
        ),
        (
            (LOGITS, TARGETS, [4, 4], [[2, -2], [2, 2]]),
            {},
            ValueError,
            "log_probability: target_lengths[0, 1] is -2, but a length cannot be negative",
        ),
        (
            (LOGITS, [[[1, 2], [2, 1]], [[1, 1], [2, 4]]], [4, 4], TWOS),
            {},
            ValueError,
            "log_probability: targets[1, 1, 1] is 4, but logits has C=3 classes",
        ),
        (
            (LOGITS, TARGETS, [4, 4], TWOS),
            {"blank": 1},
            ValueError,
            "log_probability: targets[0, 0, 0] is 1, which is the blank",
        ),
    ],
)
def test_log_probability_errors(arguments, options, error, message):
    with raises_exactly(error, message):
        log_probability(*arguments, **options)


def test_log_probability_unvalidated_values_give_nan(device):
    """An invalid text gives NaN; an invalid input length gives NaN for all texts of its sample."""
    logits = torch.randn(4, 2, 5, device=device)
    targets = torch.tensor([[[5, 1], [1, 2], [1, 0], [2, 1]], [[1, 2]] * 4], device=device)
    lengths = torch.tensor([[2, 2, 2, 3], [2, 1, -1, 0]], device=device)
    frames = torch.tensor([4, 5], device=device)
    log_p = log_probability(logits, targets, frames, lengths, validate=False)
    assert log_p.isnan().tolist() == [[True, False, True, True], [True, True, False, True]]
    single = log_probability(logits, targets[:, 1:2], frames.clamp(max=4), lengths[:, 1:2])
    assert torch.equal(log_p[0, 1], single[0, 0])


@pytest.mark.parametrize("device", ["cuda_on_host", "cuda"], indirect=True)
def test_log_probability_gpu_validate(device):
    logits = torch.zeros(4, 1, 5, device=device)
    indices = [torch.tensor(x, device=device) for x in ([[[1, 5]]], [4], [[2]])]
    with pytest.raises(
        ValueError, match=r"log_probability: targets\[0, 1\] is 5, but logits has C=5 classes"
    ):
        log_probability(logits, *indices, validate=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_probability_opcheck(device, dtype):
    logits = torch.randn(5, 2, 4, device=device, dtype=dtype)
    targets = torch.tensor([[1, 2], [3, 1], [1, 1], [2, 2]], device=device)
    lengths = torch.tensor([5, 3], device=device), torch.tensor([2, 1, 0, 2], device=device)
    for normalize in (True, False):
        arguments = (logits, targets, *lengths, 0, normalize, False)
        torch.library.opcheck(torch.ops.crnn_ext.log_probability.default, arguments)
    concatenated = torch.tensor([1, 2, 3, 2, 2], device=device)
    arguments = (logits, concatenated, *lengths, 0, True, False)
    torch.library.opcheck(torch.ops.crnn_ext.log_probability.default, arguments)


def test_log_probability_compile(device):
    compiled = torch.compile(log_probability, fullgraph=True, backend="aot_eager")
    logits = torch.randn(5, 2, 4, device=device)
    indices = [torch.tensor(x, device=device) for x in ([[[1, 2]], [[3, 1]]], [5, 3], [[2], [-1]])]
    assert torch.equal(compiled(logits, *indices), log_probability(logits, *indices))
