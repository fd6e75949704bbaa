"""greedy_decode against argmax and collapse in plain Python; its arguments and errors."""

import math
from itertools import groupby

import pytest
import torch
from helpers.logits import DTYPES, LAYOUTS, logits_beyond_32_bit_offsets, score_dtype, with_layout
from helpers.results import (
    assert_bitwise_equal,
    assert_equal_for_any_thread_count,
    assert_fields,
    raises_exactly,
)
from hypothesis import given
from hypothesis import strategies as st
from reference.ctc import no_synchronization

from crnn_ext.ctc import GreedyResult, greedy_decode

INF, NAN = math.inf, math.nan


def best_class(row):
    """The lowest class with the largest number; skips NaN; 0 if nothing is above -inf."""
    candidates = [x for x in row if x > -INF]
    return row.index(max(candidates)) if candidates else 0


def log_probability(row, best):
    """log_softmax(row)[best]; NaN if the row holds NaN or +inf."""
    if any(math.isnan(x) or x == INF for x in row):
        return NAN
    if row[best] == -INF:
        return -INF
    return -math.log(math.fsum(math.exp(x - row[best]) for x in row))


def collapse(rows, blank, normalize):
    """The score of the best path, and (token, start, end, mean log-probability) of each token."""
    path = [best_class(row) for row in rows]
    log_probs = [log_probability(r, c) if normalize else r[c] for r, c in zip(rows, path, strict=True)]
    runs, start = [], 0
    for token, group in groupby(path):
        end = start + len(list(group))
        if token != blank:
            runs.append((token, start, end, sum(log_probs[start:end]) / (end - start)))
        start = end
    return sum(log_probs), runs


def check(result, logits, lengths, blank, normalize=True):
    frames, samples, _ = logits.shape
    dtype = score_dtype(logits)
    assert_fields(
        result,
        logits.device,
        {
            "lengths": (torch.int64, (samples,)),
            "scores": (dtype, (samples,)),
            **dict.fromkeys(("tokens", "starts", "ends"), (torch.int64, (samples, frames))),
            "token_logp": (dtype, (samples, frames)),
        },
    )
    close = {"rel": 1e-12, "abs": 1e-12} if dtype == torch.float64 else {"rel": 1e-5, "abs": 1e-5}
    for n, length in enumerate(lengths):
        score, runs = collapse(logits[:length, n].double().tolist(), blank, normalize)
        count = len(runs)
        assert result.lengths[n] == count
        assert result.tokens[n].tolist() == [run[0] for run in runs] + [-1] * (frames - count)
        assert result.starts[n].tolist() == [run[1] for run in runs] + [-1] * (frames - count)
        assert result.ends[n].tolist() == [run[2] for run in runs] + [-1] * (frames - count)
        token_logp = result.token_logp[n].tolist()
        assert token_logp[:count] == pytest.approx([run[3] for run in runs], nan_ok=True, **close)
        assert token_logp[count:] == [0] * (frames - count)
        assert result.scores[n].item() == pytest.approx(score, nan_ok=True, **close)


@st.composite
def batches(draw):
    frames, samples, classes = draw(st.integers(0, 30)), draw(st.integers(0, 4)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(frames, samples, classes, generator=generator) * draw(
        st.sampled_from([0.3, 3.0, 30])
    )
    if draw(st.booleans()):
        logits = logits.round()  # ties
    value = draw(st.sampled_from([None, NAN, INF, -INF, -1e30]))
    if value is not None:
        share = draw(st.sampled_from([0.02, 0.5, 0.95]))
        logits[torch.rand(logits.shape, generator=generator) < share] = value
    lengths = torch.randint(0, frames + 1, (samples,), generator=generator)
    return logits.to(draw(st.sampled_from(DTYPES))), lengths, draw(st.integers(0, classes - 1))


@given(batches(), st.sampled_from(LAYOUTS), st.sampled_from(["logits", "log_probs"]))
def test_greedy_equals_reference(device, batch, layout, input_type):
    logits, lengths, blank = batch
    logits = logits.to(device)
    strided, device_lengths = with_layout(logits, layout), lengths.to(device)
    with no_synchronization(device):
        result = greedy_decode(strided, device_lengths, blank=blank, input_type=input_type)
    check(result, logits, lengths, blank, input_type == "logits")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 8, 9, 64, 65, 257, 1024, 1025, 5001])
def test_greedy_many_classes(device, classes, dtype):
    """With odd numbers of classes, the rows differ in their alignment to 16 bytes."""
    logits = torch.randn(4, 3, classes, generator=torch.Generator().manual_seed(classes)) * 3
    logits = logits.to(device, dtype)
    check(greedy_decode(logits, blank=classes - 1), logits, [4, 4, 4], classes - 1)


@pytest.mark.parametrize("hold", [1, 40, 700])
def test_greedy_many_frames(device, hold):
    """Tokens of `hold` frames each cross every boundary between groups of frames."""
    generator = torch.Generator().manual_seed(hold)
    path = torch.randint(0, 3, (700 // hold + 1, 4), generator=generator).repeat_interleave(hold, 0)[:700]
    logits = torch.randn(700, 4, 3, generator=generator) + 9 * torch.nn.functional.one_hot(path, 3)
    lengths = torch.tensor([700, 699, 256, 0])
    logits = logits.double().to(device)
    check(greedy_decode(logits, lengths.to(device)), logits, lengths, 0)


def test_greedy_one_token_in_all_frames(device):
    logits = torch.zeros(600, 1, 2, device=device)
    logits[..., 1] = 3
    result = greedy_decode(logits)
    assert result.tokens[0, :2].tolist() == [1, -1]
    assert (result.starts[0, 0], result.ends[0, 0]) == (0, 600)
    assert result.token_logp[0, 0].item() == pytest.approx(-math.log1p(math.exp(-3)))


@pytest.mark.parametrize(
    ("row", "best", "logp", "raw"),
    [
        ([1.0, 2.0, 2.0, 0.0], 1, -math.log(2 + math.exp(-1) + math.exp(-2)), 2.0),
        ([NAN, -1.0, 4.0, 0.0], 2, NAN, 4.0),
        ([0.0, INF, 1.0, INF], 1, NAN, INF),
        ([-INF, -INF, -5.0, -INF], 2, 0.0, -5.0),
        ([-INF] * 4, 0, -INF, -INF),
        ([NAN] * 4, 0, NAN, NAN),
        ([NAN, -INF, -INF, NAN], 0, NAN, NAN),
        ([-1e30] * 4, 0, -math.log(4), -1e30),
    ],
)
def test_greedy_single_frames(device, row, best, logp, raw):
    logits = torch.tensor(row, device=device)[None, None]
    blank = (best + 1) % 4
    for input_type, score in [("logits", logp), ("log_probs", raw)]:
        result = greedy_decode(logits, blank=blank, input_type=input_type)
        assert result.tokens.tolist() == [[best]]
        assert result.scores.tolist() == pytest.approx([score], nan_ok=True)
        assert result.token_logp.tolist() == [pytest.approx([score], nan_ok=True)]


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 0, 5), (0, 0, 5), (0, 5)])
def test_greedy_empty(device, shape):
    result = greedy_decode(torch.zeros(shape, device=device))
    batch = shape[1:-1]
    assert result.tokens.shape == (*batch, shape[0])
    assert result.scores.tolist() == torch.zeros(batch).tolist()
    assert result.lengths.tolist() == torch.zeros(batch).tolist()


def test_greedy_unbatched(device):
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]], device=device)
    for length in [None, 4, [4], torch.tensor(4), torch.tensor([4])]:
        result = greedy_decode(logits, length)
        assert result.tokens.tolist() == [1, 1, -1, -1]
        assert result.lengths.item() == 2
        assert result.starts.tolist() == [0, 3, -1, -1]
        assert result.ends.tolist() == [2, 4, -1, -1]
    assert greedy_decode(logits, 2).lengths.item() == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, None])
def test_greedy_length_dtypes(device, dtype):
    logits = torch.randn(6, 3, 4, device=device)
    lengths = [6, 0, 3]
    given_lengths = lengths if dtype is None else torch.tensor(lengths, dtype=dtype)
    check(greedy_decode(logits, given_lengths), logits, lengths, 0)
    if dtype is not None:
        strided = torch.stack([given_lengths, given_lengths + 50], 1).to(device)[:, 0]
        check(greedy_decode(logits, strided), logits, lengths, 0)


def test_greedy_ignores_padding_frames(device):
    logits = torch.randn(6, 2, 4, device=device)
    logits[3:, 0] = NAN
    check(greedy_decode(logits, [3, 6]), logits, [3, 6], 0)


def test_greedy_offsets_beyond_32_bits(device):
    logits = logits_beyond_32_bit_offsets(device)
    check(greedy_decode(logits), logits, [2], 0)


def test_greedy_requires_grad(device):
    logits = torch.randn(5, 2, 4, device=device, requires_grad=True)
    result = greedy_decode(logits)
    assert not any(field.requires_grad for field in result)
    check(result, logits.detach(), [5, 5], 0)


def test_greedy_bitwise_equal_for_any_thread_count(device):
    logits = torch.randn(90, 7, 300, device=device)
    assert_equal_for_any_thread_count(lambda: greedy_decode(logits))


LOGITS = torch.zeros(4, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1.0],), {}, TypeError, "logits must be a tensor, got list"),
        (
            (LOGITS.int(),),
            {},
            TypeError,
            "logits must be float16, bfloat16, float32 or float64, got torch.int32",
        ),
        ((LOGITS[0, 0],), {}, ValueError, "logits must be (T, N, C) or (T, C), got shape (3,)"),
        (
            (LOGITS[..., :0],),
            {},
            ValueError,
            "logits must have 1 to 2^20 classes, got shape (4, 2, 0)",
        ),
        ((LOGITS,), {"blank": 3}, ValueError, "blank must be in [0, 3), got 3"),
        ((LOGITS,), {"blank": 1.0}, TypeError, "blank must be an int, got float"),
        (
            (LOGITS,),
            {"input_type": "probs"},
            ValueError,
            "input_type must be one of 'logits', 'log_probs', got 'probs'",
        ),
        (
            (LOGITS, torch.tensor([1.0, 2.0])),
            {},
            TypeError,
            "input_lengths must have an integer dtype, got torch.float32",
        ),
        (
            (LOGITS, [1, 2, 3]),
            {},
            ValueError,
            "input_lengths must have shape (N=2,), got shape (3,)",
        ),
        (
            (LOGITS, [4, 5]),
            {},
            ValueError,
            "greedy_decode: input_lengths[1] is 5, but logits has T=4 frames",
        ),
        (
            (LOGITS, [-1, 4]),
            {},
            ValueError,
            "greedy_decode: input_lengths[0] is -1, but logits has T=4 frames",
        ),
    ],
)
def test_greedy_errors(arguments, options, error, message):
    with raises_exactly(error, message):
        greedy_decode(*arguments, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_greedy_opcheck(device, dtype):
    logits = torch.randn(5, 2, 4, device=device, dtype=dtype)
    for normalize in (True, False):
        arguments = (logits, torch.tensor([5, 3], device=device), 0, normalize)
        torch.library.opcheck(torch.ops.crnn_ext.greedy_decode.default, arguments)


def test_greedy_compile(device):
    compiled = torch.compile(greedy_decode, fullgraph=True, backend="aot_eager")
    logits = torch.randn(5, 2, 4, device=device)
    lengths = torch.tensor([5, 3], device=device)
    result = compiled(logits, lengths, blank=1)
    assert isinstance(result, GreedyResult)
    assert_bitwise_equal(result, greedy_decode(logits, lengths, blank=1))


@pytest.mark.parametrize("device", ["cuda_on_host", "cuda"], indirect=True)
def test_greedy_gpu_invalid_lengths(device):
    """Lengths on a GPU are not checked."""
    logits = torch.randn(4, 3, 5, device=device)
    result = greedy_decode(logits, torch.tensor([5, -1, 4], device=device))
    assert result.lengths[:2].tolist() == [0, 0]
    assert (result.tokens[:2] == -1).all()
    assert result.scores.isnan().tolist() == [True, True, False]
