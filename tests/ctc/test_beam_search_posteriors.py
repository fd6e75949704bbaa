"""beam_search on outputs of real networks, against the results that their sources publish."""

import json

import numpy as np
import pytest
import torch
from helpers.beam_search_checks import (
    check_against_reference,
    hypotheses,
    log_prob_rows,
    texts,
    torch_log_probs,
)
from helpers.paths import SHARED_DATA

from crnn_ext.ctc import beam_search, greedy_decode

POSTERIORS = SHARED_DATA / "posteriors"
pytestmark = pytest.mark.skipif(not POSTERIORS.is_dir(), reason="needs ../shared/data/posteriors")

LINE_CHARACTERS = " !\"#&'()*+,-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def line():
    """(100, 80) logits of a line of handwriting; the blank is the last class."""
    path = POSTERIORS / "ctcdecoder" / "line_rnnOutput.csv"
    return torch.from_numpy(np.genfromtxt(path, delimiter=";")[:, :80])


@pytest.fixture(params=["seq1", "seq2"])
def sequence(request):
    """((6, 7) log-probabilities, the dict with the published results)."""
    data = json.loads((POSTERIORS / "parlance" / "probs.json").read_text())[request.param]
    return torch.tensor(data["probs"], dtype=torch.float64).log(), data


def read(text):
    return "".join(LINE_CHARACTERS[token] for token in text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beam_search_line_beats_best_path(device, line, dtype):
    line = line.to(device, dtype)
    greedy = greedy_decode(line, blank=79)
    best_path = tuple(greedy.tokens[: greedy.lengths].tolist())
    result = beam_search(line.unsqueeze(1), blank=79, beam_size=25, rescore=True)
    (hypothesis,) = hypotheses(result)
    assert read(best_path) == "the fak friend of the fomly hae tC"
    assert read(hypothesis.text) == "the fak friend of the fomcly hae tC"
    log_probs = torch_log_probs(log_prob_rows(line.unsqueeze(1), 0, 100), [best_path, hypothesis.text], 79)
    assert log_probs == pytest.approx([-11.7098, -11.5406], abs=1e-4)
    assert hypothesis.score == pytest.approx(-11.5406, abs=1e-4)


def test_beam_search_line_equals_reference(device, line):
    logits = line.unsqueeze(1).to(device)
    options = {"blank": 79, "beam_size": 12, "nbest": 5}
    result = beam_search(logits, **options)
    assert check_against_reference(result, logits, [100], **options) == 1
    exact = torch_log_probs(log_prob_rows(logits, 0, 100), texts(result), 79)
    for hypothesis, log_prob in zip(hypotheses(result), exact, strict=True):
        assert hypothesis.score <= log_prob + 1e-9


@pytest.mark.parametrize("input_type", ["logits", "log_probs"])
def test_beam_search_published_top5(device, sequence, input_type):
    log_probs, data = sequence
    options = {"blank": data["blank"], "input_type": input_type}
    result = beam_search(log_probs.unsqueeze(1).to(device), beam_size=1024, nbest=5, **options)
    found = ["".join(data["labels"][token] for token in text) for text in texts(result)]
    expected_texts, expected_scores = zip(*data["exhaustive_top5"], strict=True)
    assert found == list(expected_texts)
    # The rows add up to 1 within eight digits.
    assert result.scores[0].tolist() == pytest.approx(expected_scores, abs=1e-6)


def test_beam_search_published_beam_20(device, sequence):
    """The published results of the source's own decoder, with a beam of 20."""
    log_probs, data = sequence
    result = beam_search(log_probs.unsqueeze(1).to(device), blank=data["blank"], beam_size=20)
    (text,) = texts(result)
    assert "".join(data["labels"][token] for token in text) == data["peer_expected"]
