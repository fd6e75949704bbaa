"""Batches for beam search, and checks of a BeamResult against the reference and torch's loss."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
from cuda_on_host import operators
from helpers.logits import DTYPES, score_dtype
from helpers.results import assert_fields
from hypothesis import strategies as st
from reference.beam_search import INVALID, MISSING, Hypothesis, beam_search, log_softmax

from crnn_ext.text import NGramModel

INF, NAN = math.inf, math.nan


def tolerances(logits):
    return {"rel": 1e-9, "abs": 1e-9} if logits.dtype == torch.float64 else {"rel": 1e-5, "abs": 1e-5}


def log_prob_rows(logits, n, length, input_type="logits"):
    """The valid frames of a sample as lists of log-probabilities in float64."""
    rows = logits[:length, n].double().tolist()
    return [log_softmax(row) for row in rows] if input_type == "logits" else rows


def hypotheses(result, n=0):
    """The n-best of a sample, best first."""
    found = []
    for tokens, length, score, log_prob in zip(
        *(field[n].tolist() for field in (result.tokens, result.lengths, result.scores, result.log_probs)),
        strict=True,
    ):
        found.append(Hypothesis(None if length == -1 else tuple(tokens[:length]), score, log_prob))
    return found


def texts(result, n=0):
    """The texts of the n-best of a sample, without missing hypotheses."""
    return [hypothesis.text for hypothesis in hypotheses(result, n) if hypothesis.text is not None]


def check_invariants(result, logits, lengths, blank, nbest):
    """Checks dtypes, shapes and padding, and that texts are distinct, valid and sorted by score."""
    frames, samples, classes = logits.shape
    assert_fields(
        result,
        logits.device,
        {
            "tokens": (torch.int64, (samples, nbest, frames)),
            "lengths": (torch.int64, (samples, nbest)),
            "scores": (score_dtype(logits), (samples, nbest)),
            "log_probs": (score_dtype(logits), (samples, nbest)),
        },
    )
    for n, length in enumerate(lengths):
        found = hypotheses(result, n)
        existing = [hypothesis for hypothesis in found if hypothesis.text is not None]
        assert len({hypothesis.text for hypothesis in existing}) == len(existing)
        assert [h.score for h in existing] == sorted((h.score for h in existing), reverse=True)
        for hypothesis, tokens in zip(existing, result.tokens[n].tolist(), strict=False):
            text = hypothesis.text
            assert len(text) <= length
            assert all(0 <= token < classes and token != blank for token in text)
            assert tokens == [*text, *[-1] * (frames - len(text))]
        missing = found[len(existing) :]
        assert (result.tokens[n, len(existing) :] == -1).all()
        assert (result.lengths[n, len(existing) :] == -1).all()
        assert missing == [MISSING] * len(missing) or repr(found) == repr([INVALID] * nbest)


def check_against_reference(
    result,
    logits,
    lengths,
    *,
    blank=0,
    beam_size=16,
    nbest=1,
    input_type="logits",
    scorers=None,
    close=None,
    **pruning,
):
    """Compares the n-best with the reference, and returns the number of samples compared.

    Skips samples in which a decision depends on the last bits of nearly equal scores.
    """
    check_invariants(result, logits, lengths, blank, nbest)
    close = close or tolerances(logits)
    compared = 0
    for n, length in enumerate(lengths):
        rows = log_prob_rows(logits, n, length, input_type)
        options = pruning if scorers is None else {**pruning, "scorer": scorers[n]}
        expected, margin, has_ties = beam_search(
            rows, blank=blank, beam_size=beam_size, nbest=nbest, **options
        )
        highest = max((abs(h.score) for h in expected if math.isfinite(h.score)), default=0)
        if margin <= 4 * (close["abs"] + close["rel"] * highest):
            continue
        # Sums of 16-bit numbers are often equal by chance. Where -inf leaves few paths, different texts may
        # have equal sums in another order, which the arithmetic of a GPU rounds differently.
        few_paths = any(math.isinf(logit) for row in rows for logit in row)
        on_gpu = logits.is_cuda or operators.cpu_kernels_overridden()
        if has_ties and (logits.element_size() == 2 or (few_paths and on_gpu)):
            continue
        found = hypotheses(result, n)
        assert [h.text for h in found] == [h.text for h in expected]
        for field in ("score", "log_prob"):
            assert [getattr(h, field) for h in found] == pytest.approx(
                [getattr(h, field) for h in expected], nan_ok=True, **close
            )
        compared += 1
    return compared


def torch_log_probs(rows, texts, blank):
    """ln P of each text by torch's loss in float64; rows are log-probabilities."""
    if not rows or not texts:
        return [0.0 if not text else -INF for text in texts]
    log_probs = torch.tensor(rows, dtype=torch.float64).unsqueeze(1).expand(-1, len(texts), -1)
    targets = torch.tensor([token for text in texts for token in text], dtype=torch.long)
    frames, lengths = [len(rows)] * len(texts), [len(text) for text in texts]
    losses = torch.nn.functional.ctc_loss(log_probs, targets, frames, lengths, blank, "none")
    return (-losses).tolist()


@st.composite
def batches(draw, max_frames=12, max_classes=12, min_classes=1, nonfinite=True, ties=True):
    """(logits, lengths, blank); the frames beyond a sample's length hold NaN.

    ties: some classes have equal logits in every frame, so that texts tie whatever the rounding.
    """
    frames, samples = draw(st.integers(0, max_frames)), draw(st.sampled_from([1, 2, 3, 0]))
    classes = draw(st.integers(min_classes, max_classes))
    if draw(st.booleans()):  # with few classes, more paths merge into one prefix
        classes = max(min_classes, min(classes, 4))
    blank = draw(st.integers(0, classes - 1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(frames, samples, classes, generator=generator) * draw(
        st.sampled_from([0.3, 3.0, 12.0])
    )
    if nonfinite and draw(st.booleans()):
        logits[torch.rand(logits.shape, generator=generator) < draw(st.sampled_from([0.05, 0.4]))] = -INF
    tokens = [token for token in range(classes) if token != blank]
    if ties and len(tokens) > 1 and draw(st.booleans()):
        for a, b in draw(st.lists(st.tuples(*[st.sampled_from(tokens)] * 2), max_size=3)):
            logits[..., a] = logits[..., b]
    if nonfinite and frames and samples and draw(st.integers(0, 9)) == 0:
        position = tuple(int(torch.randint(size, (), generator=generator)) for size in logits.shape)
        logits[position] = draw(st.sampled_from([NAN, INF]))
    lengths = torch.randint(0, frames + 1, (samples,), generator=generator)
    lengths[torch.rand(samples, generator=generator) < 0.5] = frames
    for n, length in enumerate(lengths):
        logits[length:, n] = NAN
    return logits.to(draw(st.sampled_from(DTYPES))), lengths, blank


def to_ngram_model(model, tokens, **options):
    """The NGramModel of a reference model, by way of an ARPA file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.arpa")
        path.write_text(model.arpa())
        return NGramModel.from_arpa(path, tokens, **options)
