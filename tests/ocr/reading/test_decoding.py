"""BeamSearch: the texts of a BeamSearchDecoder with exact probabilities."""

import torch
from helpers.results import raises_exactly

from crnn_ext.ctc import beam_search
from crnn_ext.ocr import BeamSearch
from crnn_ext.text import Charset, HotWords, Lexicon

CHARSET = Charset(" abc")
LENGTHS = torch.tensor([12, 0, 7])


def random_logits():
    return torch.randn(12, 3, CHARSET.num_classes, generator=torch.Generator().manual_seed(0))


def test_texts_are_those_of_beam_search():
    options = {
        "beam_size": 6,
        "nbest": 3,
        "token_score": 0.25,
        "lexicon": Lexicon.from_words(["a", "bc"], CHARSET, unknown_score=-1.0),
        "word_score": 0.5,
        "hotwords": HotWords.from_words(["cab"], CHARSET),
    }
    found = BeamSearch(CHARSET, beam_size_token=3, **options)(random_logits(), LENGTHS, CHARSET)
    result = beam_search(random_logits(), LENGTHS, token_top_k=3, rescore=True, **options)
    texts = CHARSET.decode(result.tokens, result.lengths)
    assert len(found) == 3
    for n, sample in enumerate(found):
        assert len(sample) == (result.lengths[n] >= 0).sum()
        for k, decoded in enumerate(sample):
            length = result.lengths[n, k]
            assert decoded.text == texts[n][k]
            assert decoded.probability == result.log_probs[n, k].exp().clamp(max=1).item()
            assert decoded.starts == result.starts[n, k, :length].tolist()
            assert decoded.ends == result.ends[n, k, :length].tolist()
            assert decoded.confidences == result.token_logp[n, k, :length].exp().clamp(max=1).tolist()


def test_another_charset_is_refused():
    with raises_exactly(ValueError, "charset must be that of the BeamSearch, got another one"):
        BeamSearch(CHARSET)(random_logits(), LENGTHS, Charset("abcd"))


def test_options_are_checked_at_once():
    with raises_exactly(ValueError, "beam_size must be in [1, 1024], got 0"):
        BeamSearch(CHARSET, beam_size=0)
