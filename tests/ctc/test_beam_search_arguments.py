"""Arguments of beam_search: empty inputs, masks, NaN, lengths, options, errors, opcheck and compile."""

import itertools
import math
import re

import pytest
import torch
from helpers.beam_search_checks import check_against_reference, check_invariants, hypotheses, texts
from helpers.logits import DTYPES, logits_beyond_32_bit_offsets, random_logits
from helpers.results import assert_bitwise_equal, assert_equal_for_any_thread_count, raises_exactly
from reference.beam_search import INVALID, MISSING, Hypothesis
from torch.utils._python_dispatch import TorchDispatchMode

from crnn_ext.ctc import BeamResult, beam_search
from crnn_ext.text import Charset, HotWords, Lexicon

INF, NAN = math.inf, math.nan


def is_invalid(result, n, nbest):
    return all(repr(hypothesis) == repr(INVALID) for hypothesis in hypotheses(result, n)[:nbest])


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 0, 5), (0, 0, 5), (0, 1, 1)])
def test_beam_search_empty(device, shape):
    logits = torch.zeros(shape, device=device)
    result = beam_search(logits, nbest=2)
    check_invariants(result, logits, [shape[0]] * shape[1], 0, 2)
    for n in range(shape[1]):
        assert hypotheses(result, n) == [Hypothesis((), 0.0, 0.0), MISSING]


def test_beam_search_empty_unbatched(device):
    result = beam_search(torch.zeros(0, 5, device=device), nbest=2)
    assert (result.tokens.shape, result.log_probs.shape) == ((2, 0), (2,))
    assert result.lengths.tolist() == [0, -1]
    assert result.scores.tolist() == [0, -INF]


@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
def test_beam_search_single_class_is_blank(device, input_type):
    logits = torch.full((5, 2, 1), -0.25, device=device)
    result = beam_search(logits, [5, 3], beam_size=4, nbest=2, input_type=input_type)
    for n, total in enumerate([-1.25, -0.75]):
        assert texts(result, n) == [()]
        score = 0.0 if input_type == "logits" else total
        assert result.scores[n].tolist() == pytest.approx([score, -INF])


def test_beam_search_nbest_beyond_number_of_texts(device):
    logits = random_logits(2, 1, 3, device=device)
    result = beam_search(logits, beam_size=40, nbest=40)
    assert check_against_reference(result, logits, [2], beam_size=40, nbest=40) == 1
    assert len(texts(result)) == 5  # (), (1,), (2,), (1, 2), (2, 1)


@pytest.mark.parametrize("mask", [-INF, -1e30, torch.finfo(torch.float32).min])
def test_beam_search_masked_classes(device, mask):
    logits = random_logits(8, 1, 6, device=device)
    logits[..., [2, 5]] = mask
    result = beam_search(logits, beam_size=400, nbest=50)
    used = {token for text in texts(result) for token in text}
    assert used == {1, 3, 4}
    unmasked = logits[..., [0, 1, 3, 4]]
    classes = {1: 1, 2: 3, 3: 4}
    expected = beam_search(unmasked, beam_size=400, nbest=50)
    assert texts(result) == [tuple(classes[token] for token in text) for text in texts(expected)]
    torch.testing.assert_close(result.scores, expected.scores)


def test_beam_search_masked_blank(device):
    logits = random_logits(6, 1, 4, device=device).double()
    logits[..., 1] = -INF
    result = beam_search(logits, blank=1, beam_size=50, nbest=50)
    assert check_against_reference(result, logits, [6], blank=1, beam_size=50, nbest=50) == 1
    # Without blanks, no text is empty and no token is repeated.
    assert all(text and all(a != b for a, b in itertools.pairwise(text)) for text in texts(result))


def test_beam_search_fully_masked_frame(device):
    logits = random_logits(4, 3, 3, device=device)
    logits[1, 0] = -INF
    logits[3, 2] = -INF
    result = beam_search(logits, [4, 4, 3], nbest=2)
    assert hypotheses(result, 0) == [MISSING] * 2
    assert check_against_reference(result, logits, [4, 4, 3], nbest=2) == 3


def test_beam_search_omits_impossible_texts(device):
    """The only path is 2, blank, 2."""
    logits = torch.full((3, 1, 4), -INF, device=device)
    for frame, token in enumerate([2, 0, 2]):
        logits[frame, 0, token] = -3.0
    result = beam_search(logits, beam_size=8, nbest=4)
    assert hypotheses(result) == [Hypothesis((2, 2), 0.0, 0.0), *[MISSING] * 3]


@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("token", [0, 3])
def test_beam_search_nan_stays_in_its_sample(device, bad, token, input_type):
    logits = random_logits(6, 3, 5, device=device)
    expected = beam_search(logits, [6, 6, 4], nbest=3, input_type=input_type)
    for frame in (0, 3, 5):
        changed = logits.clone()
        changed[frame, 1, token] = bad
        result = beam_search(changed, [6, 6, 4], nbest=3, input_type=input_type)
        assert is_invalid(result, 1, 3)
        for field, expected_field in zip(result, expected, strict=True):
            assert torch.equal(field[[0, 2]], expected_field[[0, 2]])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_beam_search_ignores_padding_frames(device, bad):
    logits = random_logits(6, 3, 4, device=device)
    logits[3:, 0] = bad
    logits[:, 1] = bad
    result = beam_search(logits, [3, 0, 6], nbest=2)
    assert check_against_reference(result, logits, [3, 0, 6], nbest=2) == 3
    assert hypotheses(result, 1) == [Hypothesis((), 0.0, 0.0), MISSING]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, None])
def test_beam_search_length_dtypes(device, dtype):
    logits = random_logits(6, 3, 4, device=device)
    lengths = [6, 0, 3]
    given_lengths = lengths if dtype is None else torch.tensor(lengths, dtype=dtype)
    assert check_against_reference(beam_search(logits, given_lengths), logits, lengths) == 3
    if dtype is not None:
        strided = torch.stack([given_lengths, given_lengths + 50], 1).to(device)[:, 0]
        assert check_against_reference(beam_search(logits, strided), logits, lengths) == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_beam_search_log_probs_not_normalized(device, dtype):
    """Log-probabilities may be above 0, and need not sum to a distribution."""
    log_probs = random_logits(7, 2, 5, seed=1, device=device).to(dtype)
    options = {"beam_size": 8, "nbest": 4, "input_type": "log_probs"}
    assert check_against_reference(beam_search(log_probs, **options), log_probs, [7, 7], **options) == 2


def test_beam_search_normalizing_twice(device):
    logits = random_logits(9, 2, 5, device=device).double()
    once, twice = (beam_search(x, nbest=4) for x in (logits, logits.log_softmax(-1)))
    assert torch.equal(once.tokens, twice.tokens)
    torch.testing.assert_close(once.scores, twice.scores)


def test_beam_search_offsets_beyond_32_bits(device):
    logits = logits_beyond_32_bit_offsets(device)
    assert check_against_reference(beam_search(logits, nbest=3), logits, [2], nbest=3) == 1


def test_beam_search_requires_grad(device):
    logits = random_logits(5, 2, 4, device=device).requires_grad_()
    assert check_against_reference(beam_search(logits), logits.detach(), [5, 5]) == 2


def test_beam_search_bitwise_equal_for_any_thread_count(device):
    logits = random_logits(30, 7, 60, device=device)
    options = {"beam_size": 10, "nbest": 3}
    assert_equal_for_any_thread_count(lambda: beam_search(logits, **options), counts=(1, 2, 4))


class RecordArguments(TorchDispatchMode):
    """Records the arguments of the last call of an operator."""

    def __init__(self, operator):
        super().__init__()
        self.operator, self.arguments = operator, None

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is self.operator:
            self.arguments = args
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constrained", [False, True])
def test_beam_search_opcheck(device, dtype, constrained):
    charset = Charset(" ab")
    options = {"blank": 0, "beam_size": 5, "nbest": 2}
    if constrained:
        lexicon = Lexicon.from_words(["ab", "b"], charset, unknown_score=-1.0)
        options |= {"lexicon": [lexicon, None], "hotwords": HotWords.from_words(["ba"], charset)}
    operator = torch.ops.crnn_ext.beam_search.default
    with RecordArguments(operator) as call:
        beam_search(
            random_logits(5, 2, 4, device=device).to(dtype), torch.tensor([5, 3], device=device), **options
        )
    torch.library.opcheck(operator, call.arguments)


def test_beam_search_compile(device):
    torch._dynamo.reset()
    compiled = torch.compile(beam_search, fullgraph=True, backend="aot_eager")
    logits = random_logits(5, 2, 4, device=device)
    lengths = torch.tensor([5, 3], device=device)
    options = {"blank": 1, "beam_size": 6, "nbest": 3, "token_top_k": 2, "beam_threshold": 9.0}
    result = compiled(logits, lengths, **options)
    assert isinstance(result, BeamResult)
    assert_bitwise_equal(result, beam_search(logits, lengths, **options))


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
            "beam_search: input_lengths[1] is 5, but logits has T=4 frames",
        ),
        (
            (LOGITS, [-1, 4]),
            {},
            ValueError,
            "beam_search: input_lengths[0] is -1, but logits has T=4 frames",
        ),
    ],
)
def test_beam_search_errors(arguments, options, error, message):
    with raises_exactly(error, message):
        beam_search(*arguments, **options)


def test_beam_search_infinite_limits(device):
    logits = random_logits(5, 2, 4, device=device)
    result = beam_search(logits, token_min_logp=-INF, beam_threshold=INF, token_top_k=2**70)
    assert_bitwise_equal(result, beam_search(logits))


NUMBERS = ["lm_weight", "token_score", "word_score", "hotword_weight"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"beam_size": 0}, ValueError, "got 0"),
        ({"beam_size": -3}, ValueError, "got -3"),
        ({"beam_size": 4.0}, TypeError, "got float"),
        ({"beam_size": True}, TypeError, "got bool"),
        ({"nbest": 0}, ValueError, "got 0"),
        ({"nbest": 17}, ValueError, "got 17"),  # beam_size is 16
        ({"nbest": "2"}, TypeError, "got str"),
        ({"token_top_k": 0}, ValueError, "got 0"),
        ({"token_top_k": 2.0}, TypeError, "got float"),
        ({"token_min_logp": NAN}, ValueError, "got nan"),
        ({"token_min_logp": 0.5}, ValueError, "got 0.5"),
        ({"token_min_logp": INF}, ValueError, "got inf"),
        ({"token_min_logp": "-5"}, TypeError, "got str"),
        ({"beam_threshold": -0.5}, ValueError, "got -0.5"),
        ({"beam_threshold": NAN}, ValueError, "got nan"),
        ({"beam_threshold": [1.0]}, TypeError, "got list"),
        *(({name: NAN}, ValueError, "got nan") for name in NUMBERS),
        *(({name: INF}, ValueError, "got inf") for name in NUMBERS),
        *(({name: None}, TypeError, "got NoneType") for name in NUMBERS),
        ({"lm_weight": -0.5}, ValueError, "got -0.5"),
        ({"hotword_weight": -1.0}, ValueError, "got -1.0"),
        ({"rescore": 1}, TypeError, "got int"),
        ({"lm": "model.arpa"}, TypeError, "got str"),
        ({"lexicon": "words.txt"}, TypeError, "got str"),
        ({"lexicon": [None]}, ValueError, "got 1"),  # N is 2
        ({"lexicon": [None, 3]}, TypeError, "got int"),
        ({"lexicon": ["ab", "c", "d"]}, TypeError, "got str"),
        ({"hotwords": {1: 2}}, TypeError, "got dict"),
        ({"hotwords": [None] * 3}, ValueError, "got 3"),
    ],
    ids=str,
)
def test_beam_search_option_errors(options, error, said):
    """The message names the option, the allowed values and the value given."""
    (name,) = options
    with pytest.raises(error) as caught:
        beam_search(LOGITS, **options)
    assert re.fullmatch(rf"{name}(\[\d\])? must .+, {re.escape(said)}", str(caught.value))


def test_beam_search_checks_options_of_empty_batch():
    with pytest.raises(ValueError, match="beam_size must"):
        beam_search(torch.zeros(0, 0, 3), beam_size=0)


@pytest.mark.parametrize("device", ["cuda_on_host", "cuda"], indirect=True)
def test_beam_search_gpu_invalid_lengths(device):
    """Lengths on a GPU are not checked."""
    logits = random_logits(4, 3, 5, device=device)
    result = beam_search(logits, torch.tensor([5, -1, 4], device=device), nbest=2)
    assert is_invalid(result, 0, 2)
    assert is_invalid(result, 1, 2)
    for field, expected in zip(result, beam_search(logits, nbest=2), strict=True):
        assert torch.equal(field[2], expected[2])
