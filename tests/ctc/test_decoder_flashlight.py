"""BeamSearchDecoder against the decoders of flashlight, which torchaudio's ctc_decoder runs.

With log_add=True, they agree wherever their rules are the same; docs/how-to/migrate.md lists the differences.
"""

import math
from collections import defaultdict

import pytest
import torch
from helpers.decoder_checks import TOKENS, random_emissions
from hypothesis import given
from hypothesis import strategies as st

from crnn_ext.ctc import BeamSearchDecoder

decoder = pytest.importorskip(
    "flashlight.lib.text.decoder", reason="the package flashlight-text is not installed"
)
dictionary = pytest.importorskip("flashlight.lib.text.dictionary")

BLANK, SEPARATOR = 0, 1
EVERYTHING = {"beam_size": 1000, "nbest": 1000}


def options_of(kind, beam_size=1_000_000, beam_threshold=math.inf, **options):
    """Options that sum over alignments and drop only impossible texts, which score -inf or very low."""
    return kind(
        beam_size=beam_size,
        beam_size_token=len(TOKENS),
        beam_threshold=min(beam_threshold, 1e6),
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=decoder.CriterionType.CTC,
        **options,
    )


def decoded(theirs, emissions):
    log_probs = emissions.log_softmax(-1).contiguous()
    return theirs.decode(log_probs.data_ptr(), *log_probs.shape)


def text_of(result):
    """The labels of a path, which has a silence at each end."""
    path = torch.unique_consecutive(torch.tensor(result.tokens[1:-1]))
    return tuple(path[path != BLANK].tolist())


def lexicon_free(**options):
    # No silence token: the decoder would treat it as a repeat at the start of a text.
    return decoder.LexiconFreeDecoder(
        options_of(decoder.LexiconFreeDecoderOptions, **options), decoder.ZeroLM(), -1, BLANK, []
    )


@given(seed=st.integers(0, 2**31), frames=st.integers(1, 4), scale=st.sampled_from([0.3, 1.0, 4.0]))
def test_all_texts_and_scores_are_those_of_the_lexicon_free_decoder(seed, frames, scale):
    (emissions,) = random_emissions(samples=1, frames=frames, seed=seed) * scale
    theirs = {text_of(result): result.score for result in decoded(lexicon_free(), emissions)}
    (ours,) = BeamSearchDecoder(TOKENS, **EVERYTHING)(emissions[None])
    assert {tuple(h.tokens.tolist()): h.score for h in ours} == pytest.approx(theirs, abs=1e-4)
    assert max(theirs.values()) == pytest.approx(ours[0].score, abs=1e-4)


def test_long_inputs_have_the_same_best_text():
    """The beams are so wide that pruning has no effect. flashlight keeps up to two prefixes for one text."""
    emissions = random_emissions(samples=40, frames=20) * 8
    ours = BeamSearchDecoder(TOKENS, beam_size=500)(emissions)
    for sample, (hypothesis,) in zip(emissions, ours, strict=True):
        best = decoded(lexicon_free(beam_size=2000), sample)[0]
        assert tuple(hypothesis.tokens.tolist()) == text_of(best)
        assert hypothesis.score == pytest.approx(best.score, abs=1e-4)


def lexicon_decoder(path, word_score, unk_score=-math.inf):
    words = dictionary.load_words(str(path))
    numbers = dictionary.create_word_dict(words)
    trie = decoder.Trie(len(TOKENS), SEPARATOR)
    for word, spellings in words.items():
        for spelling in spellings:
            trie.insert([TOKENS.index(token) for token in spelling], numbers.get_index(word), 0.0)
    trie.smear(decoder.SmearingMode.MAX)
    options = options_of(decoder.LexiconDecoderOptions, word_score=word_score, unk_score=unk_score)
    unknown = numbers.get_index("<unk>")
    theirs = decoder.LexiconDecoder(options, trie, decoder.ZeroLM(), SEPARATOR, BLANK, unknown, [], False)
    return theirs, numbers


@pytest.mark.parametrize("word_score", [0.0, 1.5])
def test_words_and_scores_are_those_of_the_lexicon_decoder(write_file, word_score):
    """The rules are the same if every spelling ends in the separator and unknown words are forbidden.

    - flashlight distinguishes texts by their words, crnn_ext by their tokens: "ab|" and "|ab||" are one
      hypothesis of flashlight, with the sum of their probabilities.
    - flashlight's texts end in a separator as soon as one of them does; those of crnn_ext need not.
    - Without the separator in spellings, flashlight's rules differ: the last token of a word lasts for one
      frame only, and words follow each other with nothing between them.
    - Unknown words are beginnings of known words in flashlight, and any spelling in crnn_ext.
    """
    path = write_file("ab a b |\nab c |\naa a a |\nb b |\nbc b c |\n")
    theirs, numbers = lexicon_decoder(path, word_score)
    ours = BeamSearchDecoder(TOKENS, lexicon=path, word_score=word_score, **EVERYTHING)
    samples = random_emissions(samples=12, frames=6)
    compared = set()
    for sample, hypotheses in zip(samples, ours(samples), strict=True):
        found = defaultdict(list)
        for hypothesis in hypotheses:
            if not hypothesis.words or hypothesis.tokens[-1] == SEPARATOR:
                found[tuple(hypothesis.words)].append(hypothesis.score)
        sums = {words: float(torch.tensor(scores).logsumexp(0)) for words, scores in found.items()}
        scores = {}
        for result in decoded(theirs, sample):
            words = tuple(numbers.get_entry(number) for number in result.words if number >= 0)
            scores[words] = result.score
        assert sums == pytest.approx(scores, abs=1e-4)
        compared |= set(sums)
    assert {(), ("ab",), ("aa",), ("b", "ab"), ("b", "b", "b")} <= compared


@pytest.mark.parametrize("content", ["-\n|\na\nb\nc\n", "-\n\n|\na\n\nb\nc"])
def test_token_files_are_read_alike(write_file, content):
    path = write_file(content)
    theirs = dictionary.Dictionary(str(path))
    names = BeamSearchDecoder(path).idxs_to_tokens(torch.arange(theirs.index_size()))
    assert names == [theirs.get_entry(index) for index in range(theirs.index_size())]
