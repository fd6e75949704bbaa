"""align against brute force over all paths, and against a plain Viterbi recursion in float64."""

import math
from itertools import chain

import numpy as np
import pytest
import torch
from helpers.logits import DTYPES, LAYOUTS, logits_beyond_32_bit_offsets, with_layout
from helpers.results import assert_equal_for_any_thread_count
from hypothesis import given
from hypothesis import strategies as st
from reference.align import align_operator, brute_force, check_alignment, label_lists, viterbi_path
from reference.ctc import batches, no_synchronization

from crnn_ext.ctc import Alignment, align

INF, NAN = math.inf, math.nan
SPANS = ("starts", "ends", "peaks", "token_logp")


@st.composite
def problems(draw, **sizes):
    """(logits, targets, input_lengths, target_lengths, blank), with ties, masks, NaN and infinities."""
    logits, targets, input_lengths, target_lengths, blank = draw(batches(**sizes))
    if draw(st.booleans()):
        logits = logits.clamp(-3, 3).round()  # many paths with equal sums
    value = draw(st.sampled_from([None, None, NAN, INF, -INF, -1e30]))
    if value is not None:
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        share = draw(st.sampled_from([0.001, 0.1, 0.6]))
        logits[torch.rand(logits.shape, generator=generator) < share] = value
    return logits.to(draw(st.sampled_from(DTYPES))), targets, input_lengths, target_lengths, blank


@given(problems(), st.sampled_from(LAYOUTS), st.sampled_from(["logits", "log_probs"]))
def test_align_equals_viterbi_recursion(device, problem, layout, input_type):
    logits, *indices, blank = problem
    logits = with_layout(logits.to(device), layout)
    indices = [tensor.to(device) for tensor in indices]
    with no_synchronization(device):
        result = align(logits, *indices, blank=blank, input_type=input_type)
    targets, input_lengths, target_lengths = indices
    labels = label_lists(targets, target_lengths)
    check_alignment(
        result,
        logits,
        labels,
        input_lengths.tolist(),
        blank,
        input_type == "logits",
        columns=targets.shape[1],
    )


@given(problems(max_frames=5, max_classes=4, max_target_length=4))
def test_align_equals_brute_force(device, problem):
    logits, *indices, blank = problem
    logits = logits.to(device)
    targets, input_lengths, target_lengths = (tensor.to(device) for tensor in indices)
    result = align(logits, targets, input_lengths, target_lengths, blank=blank)
    labels = label_lists(targets, target_lengths)
    columns = targets.shape[1]
    check_alignment(result, logits, labels, input_lengths.tolist(), blank, columns=columns, find=brute_force)


@pytest.mark.parametrize(
    ("labels", "frames", "tokens"),
    [
        ([], 3, [0, 0, 0]),
        ([1], 1, [1]),
        ([1], 3, [1, 0, 0]),
        ([1, 2], 3, [1, 2, 0]),
        ([1, 1], 4, [1, 0, 1, 0]),
        ([1, 2], 2, [1, 2]),
    ],
)
def test_align_ties_emit_labels_earliest(device, labels, frames, tokens):
    result = align(torch.zeros(frames, 3, device=device), labels, frames, len(labels))
    assert result.tokens.tolist() == tokens


def test_align_peak_ties_take_first_frame(device):
    logits = torch.zeros(7, 2, device=device)
    logits[[0, 6], 0] = 1
    logits[1:6, 1] = torch.tensor([4.0, 5, 4, 5, 4])
    result = align(logits, [1], 7, 1)
    assert (result.starts.tolist(), result.ends.tolist(), result.peaks.tolist()) == ([1], [6], [2])
    expected_logp = torch.log_softmax(logits, -1)[1:6, 1].mean().item()
    assert result.token_logp.tolist() == pytest.approx([expected_logp])


def test_align_peak_uses_log_probs_not_logits(device):
    """The frame of the largest logit is not the most probable one if the rest of its row is large too."""
    logits = torch.tensor([[0.0, 5, 0], [9.0, 10, 0]], device=device)
    result = align(logits, [1], 2, 1)
    assert (result.ends.tolist(), result.peaks.tolist()) == ([2], [0])


@pytest.mark.parametrize("length", [0, 1, 15, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 700])
def test_align_target_lengths_around_kernel_sizes(device, length):
    """On both sides of each boundary between kernels for different lengths."""
    generator = torch.Generator().manual_seed(length)
    logits = torch.randn(length + 40, 2, 7, generator=generator).to(device)
    targets = torch.randint(1, 7, (2, length), generator=generator)
    targets[0] = torch.arange(length) % 6 + 1  # no repeated label, so the fewest frames are enough
    lengths = [length + 40, length + 7]
    result = align(logits, targets.to(device), lengths, [length, length // 2])
    check_alignment(result, logits, [targets[0].tolist(), targets[1, : length // 2].tolist()], lengths)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 9, 64, 65, 1025, 5001])
def test_align_many_classes(device, classes, dtype):
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(9, 3, classes, generator=generator) * 3).to(device, dtype)
    targets = torch.randint(0, classes - 1, (3, 4), generator=generator)
    result = align(logits, targets.to(device), [9, 8, 9], [4, 2, 0], blank=classes - 1)
    check_alignment(
        result, logits, label_lists(targets, torch.tensor([4, 2, 0])), [9, 8, 9], classes - 1, columns=4
    )


def test_align_sums_in_float64(device):
    """With sums in float32, another path wins here."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3000, 1, 6, generator=generator) + 40
    labels = torch.randint(1, 6, (90,), generator=generator).tolist()
    in_float64, in_float32 = (
        viterbi_path(logits[:, 0], labels, 0, dtype) for dtype in (np.float64, np.float32)
    )
    assert in_float64 != in_float32
    check_alignment(align(logits.to(device), [labels], [3000], [90]), logits.to(device), [labels], [3000])


def test_align_large_logit_offset(device):
    logits = torch.randn(50, 1, 9, generator=torch.Generator().manual_seed(3)).double()
    near = align(logits.to(device), [[3, 3, 1]], [50], [3])
    far = align(logits.to(device) + 2.0**20, [[3, 3, 1]], [50], [3])
    assert torch.equal(near.tokens, far.tokens)
    torch.testing.assert_close(near.scores, far.scores, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("labels", "frames", "score"),
    [([1, 1], 2, -INF), ([1, 2], 1, -INF), ([1], 0, -INF), ([], 0, 0.0), ([1, 1], 3, 3 * -math.log(3))],
)
def test_align_too_few_frames(device, labels, frames, score):
    logits = torch.zeros(4, 2, 3, device=device)
    targets = [labels, [2] * len(labels)]
    result = align(logits, targets, [frames, 4], [len(labels), 0])
    assert result.scores.tolist() == pytest.approx([score, -4 * math.log(3)])
    if score == -INF:
        for field in (result.tokens, result.starts, result.ends, result.peaks):
            assert (field[0] == -1).all()
        assert (result.token_logp[0] == 0).all()


def test_align_masked_classes(device):
    logits = torch.zeros(5, 3, 4, device=device)
    logits[..., 3] = -INF
    logits[2:, 1, 0] = -INF  # no blank from frame 2 on
    logits[3, 2] = -INF  # no path through frame 3
    result = align(logits, [[1, 3], [1, 2], [1, 2]], [5, 5, 5], [2, 2, 2])
    assert result.scores[[0, 2]].tolist() == [-INF, -INF]
    assert (result.tokens[[0, 2]] == -1).all()
    assert result.tokens[1].tolist() == [1, 2, 2, 2, 2]


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
def test_align_nan_and_inf(device, bad, input_type):
    """In logits, NaN or inf counts in any class; in log-probabilities, only in classes of the target."""
    logits = torch.zeros(5, 4, 6, device=device)
    logits[4, 1, 5] = bad
    logits[0, 2, 3] = bad
    logits[4, 3, 5] = bad
    result = align(logits, [[1, 3]] * 4, [5, 5, 5, 4], [2] * 4, input_type=input_type)
    nan = [False, input_type == "logits", True, False]
    assert result.scores.isnan().tolist() == nan
    for n in range(4):
        assert ((result.tokens[n, :4] == -1).all() and (result.starts[n] == -1).all()) == nan[n]


@pytest.mark.parametrize("concatenated", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("samples", [1, 5])
def test_align_several_texts_per_sample(device, samples, normalize, concatenated):
    """K * N rows of targets give the same bits as K calls."""
    generator = torch.Generator().manual_seed(samples)
    logits = torch.randn(30, samples, 12, generator=generator).to(device)
    targets = torch.randint(1, 12, (samples, 3, 8), generator=generator).to(device)
    input_lengths = torch.randint(10, 31, (samples,), generator=generator).to(device)
    target_lengths = torch.randint(0, 9, (samples, 3), generator=generator).to(device)
    rows = targets.flatten(0, 1), target_lengths.flatten()
    if concatenated:
        labels = torch.tensor(list(chain(*label_lists(*rows))), device=device)
        batched = align_operator(logits, labels, input_lengths, rows[1], normalize=normalize)
        assert batched.starts.shape == (3 * samples, min(30, len(labels)))
        assert (batched.starts[:, 8:] == -1).all()
    else:
        batched = align_operator(logits, rows[0], input_lengths, rows[1], normalize=normalize)
    for k in range(3):
        single = align_operator(
            logits, targets[:, k], input_lengths, target_lengths[:, k].contiguous(), normalize=normalize
        )
        for name, a, b in zip(Alignment._fields, batched, single, strict=True):
            a = a.unflatten(0, (samples, 3))[:, k]
            assert torch.equal(a[:, :8] if name in SPANS else a, b), name


def test_align_batch_equals_single_samples(device):
    logits, targets, input_lengths, target_lengths = (
        torch.randn(40, 6, 30, generator=torch.Generator().manual_seed(1)).to(device),
        torch.randint(1, 30, (6, 12), generator=torch.Generator().manual_seed(2)).to(device),
        torch.tensor([40, 39, 13, 0, 30, 25], device=device),
        torch.tensor([12, 0, 11, 0, 5, 12], device=device),
    )
    batch = align(logits, targets, input_lengths, target_lengths)
    for n in range(6):
        one = align(logits[:, n], targets[n], input_lengths[n], target_lengths[n])
        for name, a, b in zip(Alignment._fields, batch, one, strict=True):
            assert torch.equal(a[n], b), name


def test_align_ignores_padding(device):
    """Frames and labels beyond the lengths change nothing."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(20, 2, 8, generator=generator).to(device)
    targets = torch.randint(1, 8, (2, 6), generator=generator).to(device)
    one = align(logits, targets, [20, 15], [6, 4])
    padded = align(
        torch.nn.functional.pad(logits, (0, 0, 0, 0, 0, 5), value=NAN),
        torch.nn.functional.pad(targets, (0, 3), value=-77),
        [20, 15],
        [6, 4],
    )
    assert torch.equal(one.scores, padded.scores)
    for name in ("tokens", *SPANS):
        a, b = getattr(one, name), getattr(padded, name)
        assert torch.equal(a, b[:, : a.shape[1]])
        assert (b[:, a.shape[1] :] == (0 if name == "token_logp" else -1)).all()


def test_align_concatenated_targets(device):
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(12, 4, 9, generator=generator).to(device)
    labels = [[1, 2, 2, 5], [], [8], [3, 4]]
    flat = torch.tensor(list(chain(*labels)), device=device)
    result = align(logits, flat, [12, 12, 9, 12], [4, 0, 1, 2])
    check_alignment(result, logits, labels, [12, 12, 9, 12], columns=7)
    # The columns are limited by T: a target with more labels than frames has no path.
    few = align(logits[:3], flat, [3, 3, 3, 3], [4, 0, 1, 2])
    check_alignment(few, logits[:3], labels, [3] * 4, columns=3)


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 0, 5), (0, 0, 5)])
@pytest.mark.parametrize("columns", [0, 2])
def test_align_empty(device, shape, columns):
    frames, samples, _ = shape
    targets = torch.ones(samples, columns, dtype=torch.long, device=device)
    for length in (0, columns):
        result = align(torch.zeros(shape, device=device), targets, [frames] * samples, [length] * samples)
        check_alignment(
            result,
            torch.zeros(shape, device=device),
            [[1] * length] * samples,
            [frames] * samples,
            columns=columns,
        )


def test_align_offsets_beyond_32_bits(device):
    logits = logits_beyond_32_bit_offsets(device)
    check_alignment(align(logits, [[3, 7]], [2], [2]), logits, [[3, 7]], [2])


@pytest.mark.parametrize("samples", [1, 7])
def test_align_bitwise_equal_for_any_thread_count(device, samples):
    generator = torch.Generator().manual_seed(samples)
    logits = torch.randn(90, samples, 300, generator=generator).to(device)
    targets = torch.randint(1, 300, (2 * samples, 20), generator=generator).to(device)
    lengths = torch.full((samples,), 90, device=device), torch.full((2 * samples,), 20, device=device)
    assert_equal_for_any_thread_count(lambda: align_operator(logits, targets, *lengths))
