"""BeamSearchDecoder against pyctcdecode: equal scores with the options of docs/how-to/migrate.md.

pyctcdecode distinguishes texts by their words, so its scores are sums over texts that differ in the number of
spaces. All emissions are so short that nothing needs to be pruned.
"""

import logging
import math
from collections import defaultdict

import pytest
import torch
from helpers.decoder_checks import random_emissions
from reference.ngram import estimate_model

from crnn_ext.ctc import BeamSearchDecoder

pyctcdecode = pytest.importorskip("pyctcdecode", reason="the package pyctcdecode is not installed")

LABELS = [" ", "a", "b", "c", ""]
EVERYTHING = {"beam_size": 1000, "nbest": 1000}
SENTENCES = ["ab cab", "cab ab ab", "bab a", "a ab"]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """pyctcdecode warns about small vocabularies."""
    caplog.set_level(logging.ERROR, "pyctcdecode")


def theirs(decoder, emissions, beam_prune_logp=-math.inf, **options):
    everything = {"beam_width": 100_000, "token_min_logp": -math.inf, "beam_prune_logp": beam_prune_logp}
    beams = decoder.decode_beams(emissions.numpy(), **everything, **options)
    return {text: score for text, *_, score in beams}


def ours(decoder, emissions):
    (hypotheses,) = decoder(emissions[None])
    found = defaultdict(list)
    for hypothesis in hypotheses:
        found[" ".join(hypothesis.words)].append(hypothesis.score)
    return {text: float(torch.tensor(scores).logsumexp(0)) for text, scores in found.items()}


def test_scores_are_the_same():
    decoder = BeamSearchDecoder(LABELS, blank_token="", **EVERYTHING)
    for emissions in random_emissions(samples=5, frames=5):
        expected = theirs(pyctcdecode.build_ctcdecoder(LABELS), emissions)
        assert len(expected) > 300
        assert ours(decoder, emissions) == pytest.approx(expected, abs=1e-5)


def test_its_weight_is_for_a_hot_word_ours_for_each_token():
    for word, weight in [("ab", 4.0), ("cab", 9.0)]:
        decoder = BeamSearchDecoder(
            LABELS, blank_token="", hotwords=[word], hotword_weight=weight / len(word), **EVERYTHING
        )
        for emissions in random_emissions(samples=5, frames=5):
            expected = theirs(
                pyctcdecode.build_ctcdecoder(LABELS), emissions, hotwords=[word], hotword_weight=weight
            )
            assert ours(decoder, emissions) == pytest.approx(expected, abs=1e-5)


def test_a_model_over_words(tmp_path):
    """No text ends in a space: pyctcdecode would add an empty, unknown word."""
    pytest.importorskip("kenlm", reason="the package kenlm is not installed")
    arpa, lexicon = tmp_path / "words.arpa", tmp_path / "lexicon.txt"
    arpa.write_text(estimate_model(3, [sentence.split() for sentence in SENTENCES]).arpa())
    lexicon.write_text("a a\nab a b\ncab c a b\nbab b a b\n")
    alpha, beta, offset = 0.7, 1.2, -6.0
    their_decoder = pyctcdecode.build_ctcdecoder(
        LABELS, str(arpa), alpha=alpha, beta=beta, unk_score_offset=offset
    )
    decoder = BeamSearchDecoder(
        LABELS,
        blank_token="",
        lexicon=lexicon,
        lm=arpa,
        lm_weight=alpha,
        word_score=beta,
        unk_score=alpha * math.log(10) * offset + beta,
        **EVERYTHING,
    )
    compared = 0
    for emissions in random_emissions(samples=5, frames=5) * 0.3:
        emissions[-1, [0, 4]] = -1e4  # the last frame is a letter; pyctcdecode takes 1e-15 for 0
        expected = theirs(their_decoder, emissions, beam_prune_logp=-25.0)
        found = ours(decoder, emissions)
        assert {text: found[text] for text in expected} == pytest.approx(expected, abs=1e-5)
        assert any(set(text.split()) - {"a", "ab", "cab", "bab"} for text in expected)
        compared += len(expected)
    assert compared > 500
