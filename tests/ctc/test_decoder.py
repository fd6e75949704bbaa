"""BeamSearchDecoder: the results of beam_search as tokens, words and texts, also in other processes."""

import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from helpers.decoder_checks import TOKENS, as_tuples, best_hypothesis, expected_tuples, random_emissions
from reference.ngram import estimate_model

from crnn_ext.ctc import BeamSearchDecoder
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel

INF, NAN = math.inf, math.nan
CHARSET = Charset(" abc")  # the classes of TOKENS
WORDS = ["a", "ab", "cab", "bab"]
SENTENCES = ["ab cab", "cab ab ab", "bab a", "a ab"]


def word_arpa():
    return estimate_model(3, [sentence.split() for sentence in SENTENCES]).arpa()


def token_arpa(space="|"):
    sentences = [[space if token == " " else token for token in sentence] for sentence in SENTENCES]
    return estimate_model(3, sentences).arpa()


def test_it_is_beam_search(device):
    emissions, lengths = random_emissions().to(device), torch.tensor([12, 0, 5, 12, 1, 9])
    decoder = BeamSearchDecoder(TOKENS, nbest=4, beam_size=6)
    found = decoder(emissions, lengths)
    assert as_tuples(found) == expected_tuples(emissions, lengths, nbest=4, beam_size=6)
    assert as_tuples(decoder(emissions, lengths.tolist())) == as_tuples(found)
    assert as_tuples(decoder(emissions)) == expected_tuples(emissions, nbest=4, beam_size=6)
    for hypothesis in (hypothesis for sample in found for hypothesis in sample):
        for part in (hypothesis.tokens, hypothesis.timesteps, hypothesis.starts, hypothesis.ends):
            assert (part.dtype, part.device.type) == (torch.int64, "cpu")
        assert (hypothesis.token_logp.dtype, hypothesis.token_logp.device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize(
    ("options", "of_beam_search"),
    [
        ({"nbest": 5}, {"nbest": 5}),
        ({"beam_size": 1}, {"beam_size": 1}),
        ({"beam_size_token": 1}, {"token_top_k": 1}),
        ({"beam_threshold": 0.5}, {"beam_threshold": 0.5}),
        ({"token_min_logp": -1.0}, {"token_min_logp": -1.0}),
        ({"token_score": 1.5}, {"token_score": 1.5}),
        ({"rescore": True, "beam_size": 2}, {"rescore": True, "beam_size": 2}),
        ({"input_type": "log_probs"}, {"input_type": "log_probs"}),
    ],
    ids=str,
)
def test_options_of_the_search(options, of_beam_search):
    emissions = random_emissions()
    found = as_tuples(BeamSearchDecoder(TOKENS, **options)(emissions))
    assert found == expected_tuples(emissions, **of_beam_search)
    assert found != expected_tuples(emissions)


def test_what_scores_texts(write_file):
    """Language model, lexicon and hot words: objects, files, and their weights."""
    emissions = random_emissions()
    lexicon = Lexicon.from_words(WORDS, CHARSET)
    lm_file, words_file = write_file(token_arpa()), write_file(word_arpa())
    hotwords = HotWords.from_words(["cab", "ab ab"], CHARSET)
    token_lm = NGramModel.from_arpa(lm_file, TOKENS)
    word_lm = NGramModel.from_arpa(words_file, lexicon)
    lexicon_file = write_file("".join(f"{word} {' '.join(word)} |\n" for word in WORDS))
    seen = [expected_tuples(emissions)]
    for options, same in [
        ({"lm": token_lm}, {"lm": lm_file}),
        ({"lm": token_lm, "lm_weight": 2.0}, {"lm": str(lm_file)}),
        ({"lexicon": lexicon}, {"lexicon": lexicon_file}),
        ({"lexicon": lexicon, "word_score": 3.0}, {"lexicon": str(lexicon_file)}),
        ({"lexicon": lexicon, "lm": word_lm}, {"lexicon": lexicon_file, "lm": words_file}),
        ({"hotwords": hotwords}, {"hotwords": ["cab", "ab ab"]}),
        ({"hotwords": hotwords, "hotword_weight": 2.5}, {"hotwords": iter(["cab", "ab ab"])}),
    ]:
        found = as_tuples(BeamSearchDecoder(TOKENS, **options)(emissions))
        assert found == expected_tuples(emissions, **options)
        assert found not in seen
        seen.append(found)
        assert as_tuples(BeamSearchDecoder(TOKENS, **{**options, **same})(emissions)) == found


def test_all_options_at_once(device, write_file):
    """Results equal those of beam_search bit for bit, for each dtype."""
    lexicon = Lexicon.from_words(WORDS, CHARSET, unknown_score=-1.0)
    options = {
        "nbest": 4,
        "beam_size": 6,
        "beam_threshold": 8.0,
        "token_min_logp": -6.0,
        "lm": NGramModel.from_arpa(write_file(word_arpa()), lexicon),
        "lm_weight": 0.75,
        "token_score": 0.25,
        "lexicon": lexicon,
        "word_score": 0.5,
        "hotwords": HotWords.from_words(["cab", "ab ab"], CHARSET),
        "hotword_weight": 1.5,
        "rescore": True,
        "input_type": "log_probs",
    }
    lengths = [12, 0, 5, 12, 1, 9]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        emissions = random_emissions().log_softmax(-1).to(device, dtype)
        found = as_tuples(BeamSearchDecoder(TOKENS, beam_size_token=3, **options)(emissions, lengths))
        assert found == expected_tuples(emissions, lengths, token_top_k=3, **options)


def test_a_lexicon_for_each_sample(device):
    emissions = random_emissions().to(device)
    a, b = Lexicon.from_words(["a", "ab"], CHARSET), Lexicon.from_words(["c", "bb"], CHARSET)
    lexicons = [a, None, b, a, b, None]
    decoder = BeamSearchDecoder(TOKENS, nbest=3, word_score=0.5)
    found = decoder(emissions, lexicon=lexicons)
    assert as_tuples(found) == expected_tuples(emissions, lexicon=lexicons, nbest=3, word_score=0.5)
    for sample, lexicon in zip(found, lexicons, strict=True):
        words = {word for hypothesis in sample for word in hypothesis.words}
        assert lexicon is None or all(word in lexicon for word in words)
    assert as_tuples(decoder(emissions)) == expected_tuples(emissions, nbest=3, word_score=0.5)
    # Lexicons of a call replace that of the decoder.
    strict = BeamSearchDecoder(TOKENS, nbest=3, word_score=0.5, lexicon=b)
    assert as_tuples(strict(emissions, lexicon=tuple(lexicons))) == as_tuples(found)
    assert decoder(emissions[:0], lexicon=[]) == []


def test_hot_words_for_each_sample(device):
    emissions = random_emissions().to(device)
    a, b = HotWords.from_words(["a", "ab"], CHARSET), HotWords.from_words(["c", "bb"], CHARSET)
    hotwords = [a, None, b, a, b, None]
    decoder = BeamSearchDecoder(TOKENS, nbest=3, hotwords=b, hotword_weight=2.0)
    found = as_tuples(decoder(emissions, hotwords=hotwords))
    assert found == expected_tuples(emissions, hotwords=hotwords, nbest=3, hotword_weight=2.0)
    assert as_tuples(decoder(emissions)) == expected_tuples(
        emissions, hotwords=b, nbest=3, hotword_weight=2.0
    )
    assert as_tuples(decoder(emissions)) != found


def test_words_of_a_lexicon_for_each_sample():
    two = Lexicon.from_spellings({"Two": [["a", "b"]]}, ["", *TOKENS[1:]], separators=["|"])
    six = Lexicon.from_spellings({"Six": [["a", "b"]]}, ["", *TOKENS[1:]], separators=["|"])
    path = [index for token in "ab" for index in (TOKENS.index(token), 0)]
    emissions = 9.0 * torch.nn.functional.one_hot(torch.tensor([path] * 3), len(TOKENS))
    found = BeamSearchDecoder(TOKENS, lexicon=two)(emissions, lexicon=[six, None, two])
    assert [sample[0].words for sample in found] == [["Six"], ["ab"], ["Two"]]


@pytest.mark.parametrize("unit", ["|", "<space>", "\u2581", "_"])
@pytest.mark.parametrize("sil_token", ["|", " ", "<sil>"])
def test_the_separator_in_a_model_over_tokens(unit, sil_token, write_file):
    tokens = ["-", sil_token, "a", "b", "c"]
    decoder = BeamSearchDecoder(tokens, sil_token=sil_token, lm=write_file(token_arpa(unit)), nbest=3)
    emissions = random_emissions()
    same = NGramModel.from_arpa(write_file(token_arpa()), TOKENS)
    assert as_tuples(decoder(emissions)) == expected_tuples(emissions, lm=same, nbest=3)
    assert as_tuples(decoder(emissions)) != expected_tuples(emissions, nbest=3)


def test_words_that_the_lexicon_does_not_have(write_file):
    lexicon_file = write_file("ab a b |\ncab c a b |")
    emissions = random_emissions()
    for score in (-1.0, 2.0):
        found = BeamSearchDecoder(TOKENS, lexicon=lexicon_file, unk_score=score, word_score=0.5)(emissions)
        lexicon = Lexicon.from_words(["ab", "cab"], CHARSET, unknown_score=score)
        assert as_tuples(found) == expected_tuples(emissions, lexicon=lexicon, word_score=0.5)
        assert any(set(sample[0].words) - {"ab", "cab"} for sample in found)
    strict = BeamSearchDecoder(TOKENS, lexicon=lexicon_file)(emissions)
    assert all(set(sample[0].words) <= {"ab", "cab"} for sample in strict)


@pytest.mark.parametrize(
    "tokens",
    [CHARSET, TOKENS, tuple(TOKENS), "-\n|\na\nb\nc\n", "-\r\n\r\n|\r\na\r\nb\r\nc", "-\n \na\nb\nc"],
    ids=["Charset", "list", "tuple", "file", "empty lines", "space"],
)
def test_tokens(tokens, write_file):
    emissions = random_emissions()
    sources = [write_file(tokens), str(write_file(tokens))] if isinstance(tokens, str) else [tokens]
    for source in sources:
        decoder = BeamSearchDecoder(source, nbest=3)
        assert as_tuples(decoder(emissions)) == expected_tuples(emissions, nbest=3)
        names = decoder.idxs_to_tokens(torch.tensor([2, 4, 3]))
        assert names == ["a", "c", "b"]


def test_the_blank_has_any_name_and_place():
    charset = Charset("ab ", blank=2)
    tokens = ["a", "b", "<pad>", " "]
    emissions = random_emissions(classes=4)
    found = as_tuples(BeamSearchDecoder(charset, nbest=3)(emissions))
    assert found == as_tuples(BeamSearchDecoder(tokens, blank_token="<pad>", nbest=3)(emissions))
    assert found == as_tuples(BeamSearchDecoder(["a", "b", "", " "], blank_token="", nbest=3)(emissions))
    assert any(" " in sample[0].text for sample in BeamSearchDecoder(charset)(emissions))


def test_the_separator_of_words():
    text = ["a", "|", "b", " ", "c"]
    both = [*TOKENS, " "]
    for sil_token, words in [(None, ["a", "b", "c"]), ("|", ["a", "b", "c"]), (" ", ["a|b", "c"]), ("b", [])]:
        decoder = BeamSearchDecoder(both, sil_token=sil_token, hotwords=[])
        hypothesis = best_hypothesis(decoder, text, tokens=both)
        if sil_token == "b":
            words = ["a|", "c"]
        assert hypothesis.words == words
    # Hot words are whole words between separators; the separator of a Charset is its space.
    charset = Charset("|abc ", blank=0)
    decoder = BeamSearchDecoder(charset, hotwords=["b"])
    assert best_hypothesis(decoder, text, tokens=both).words == ["a|b", "c"]


def test_texts():
    decoder = BeamSearchDecoder(TOKENS)
    for tokens, words, text in [
        ("a|b", ["a", "b"], "a b"),
        ("|a||b|", ["a", "b"], " a  b "),
        ("|", [], " "),
        ("", [], ""),
    ]:
        hypothesis = best_hypothesis(decoder, tokens) if tokens else decoder(torch.empty(1, 0, 5))[0][0]
        assert (hypothesis.words, hypothesis.text) == (words, text)
        assert decoder.idxs_to_tokens(hypothesis.tokens) == list(tokens)
        assert hypothesis.timesteps.tolist() == list(range(0, 2 * len(tokens), 2))


def test_texts_of_a_sample_are_distinct():
    found = BeamSearchDecoder(TOKENS, beam_size=100, nbest=50)(random_emissions(frames=6))
    for sample in found:
        texts = [hypothesis.text for hypothesis in sample]
        assert len(set(texts)) == len(texts) == 50
        assert len({text.strip() for text in texts}) < 50


def test_no_separator():
    tokens = ["-", "a", "b\u00a0", "\u3000"]
    hypothesis = best_hypothesis(BeamSearchDecoder(tokens), ["a", "b\u00a0", "\u3000"], tokens=tokens)
    assert (hypothesis.words, hypothesis.text) == (["ab\u00a0\u3000"], "ab\u00a0\u3000")


def test_the_separator_in_longer_tokens():
    """As in the vocabularies of SentencePiece."""
    tokens = ["-", "\u2581", "\u2581the", "\u2581ca", "t"]
    decoder = BeamSearchDecoder(tokens, sil_token="\u2581")
    hypothesis = best_hypothesis(decoder, ["\u2581the", "\u2581ca", "t", "\u2581"], tokens=tokens)
    assert (hypothesis.words, hypothesis.text) == (["the", "cat"], " the cat ")


def test_words_are_those_of_the_lexicon(write_file):
    """Of words with the same spelling, the first is decoded."""
    lexicon = write_file("Two a b |\nToo a b |\nSix c |\nSix b c c |")
    decoder = BeamSearchDecoder(TOKENS, lexicon=lexicon, unk_score=-5.0)
    hypothesis = best_hypothesis(decoder, "ab|c|bcc||aa")
    assert (hypothesis.words, hypothesis.text) == (["Two", "Six", "Six", "aa"], "ab c bcc  aa")
    decoder = BeamSearchDecoder(TOKENS, lexicon=lexicon)
    assert best_hypothesis(decoder, "|bcc|ab|").words == ["Six", "Two"]
    assert best_hypothesis(decoder, "||").words == []


def test_a_lexicon_with_other_separators():
    tokens = ["-", " ", "a", "b", "+"]
    lexicon = Lexicon.from_words(["a", "ab"], Charset(" ab+"), separators=" +")
    hypothesis = best_hypothesis(BeamSearchDecoder(tokens, lexicon=lexicon), "ab+a a", tokens=tokens)
    assert (hypothesis.words, hypothesis.text) == (["ab", "a", "a"], "ab+a a")


def test_a_lexicon_without_separators(write_file):
    tokens = ["-", "a", "b"]
    decoder = BeamSearchDecoder(tokens, lexicon=write_file("AB a b\nA a"))
    assert best_hypothesis(decoder, "ab", tokens=tokens).words == ["AB"]
    assert best_hypothesis(decoder, "aba", tokens=tokens).words != ["AB", "A"]  # a text is a single word


def test_hot_words_as_str():
    """A space stands for the separator; a phrase matches as a whole."""
    emissions = random_emissions(samples=30)
    for words in (["cab"], ["b a", "c"], ["b|a"]):
        spelt = {word: list(word.replace(" ", "|")) for word in words}
        hotwords = HotWords.from_spellings(spelt, TOKENS, separators=["|"])
        decoder = BeamSearchDecoder(TOKENS, hotwords=words, hotword_weight=3.0)
        found = decoder(emissions)
        assert as_tuples(found) == expected_tuples(emissions, hotwords=hotwords, hotword_weight=3.0)
        assert any(words[0].replace("|", " ") in sample[0].text for sample in found)
    assert as_tuples(BeamSearchDecoder(TOKENS, hotwords=[])(emissions)) == expected_tuples(emissions)


def test_hot_words_are_composed_as_a_charset_is():
    charset = Charset(" eé")
    emissions = random_emissions(classes=4)
    found = [as_tuples(BeamSearchDecoder(charset, hotwords=[word])(emissions)) for word in ("é", "e\u0301")]
    assert found[0] == found[1] != as_tuples(BeamSearchDecoder(charset)(emissions))
    # Without a Charset, a combining accent may be a token.
    tokens = ["-", " ", "e", "\u0301"]
    found = [as_tuples(BeamSearchDecoder(tokens, hotwords=words)(emissions)) for words in (["e\u0301"], [])]
    assert found[0] != found[1]


def test_missing_hypotheses(write_file):
    emissions = random_emissions(samples=4)
    emissions[1, 3, 2] = NAN
    emissions[2, 5] = -INF
    emissions[3, :, 2:] = -INF
    decoder = BeamSearchDecoder(TOKENS, nbest=16)
    found = decoder(emissions)
    assert [len(sample) for sample in found] == [16, 0, 0, 7]  # 0 to 6 separators in 12 frames
    assert as_tuples(found) == expected_tuples(emissions, nbest=16)
    # The frames are too few for any word.
    emissions = random_emissions(samples=1, frames=2)
    emissions[..., :2] = -INF
    assert BeamSearchDecoder(TOKENS, lexicon=write_file("abc a b c |"))(emissions) == [[]]


def test_sizes_of_nothing():
    decoder = BeamSearchDecoder(TOKENS, nbest=2)
    assert decoder(torch.empty(0, 7, 5)) == []
    (sample,) = decoder(torch.empty(1, 0, 5))
    assert as_tuples([sample]) == [[([], [], "", 0.0, [], 0.0, [], [], [])]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_strides(dtype):
    emissions = random_emissions().to(dtype)
    decoder = BeamSearchDecoder(TOKENS, nbest=2)
    found = as_tuples(decoder(emissions))
    assert found == expected_tuples(emissions, nbest=2)
    time_first = emissions.transpose(0, 1).contiguous().transpose(0, 1)
    spread = torch.stack([emissions, emissions], dim=-1)[..., 0]
    assert as_tuples(decoder(time_first)) == as_tuples(decoder(spread)) == found


def everything(write_file):
    """A decoder with a model over words: pickling must keep the model's reference to the lexicon."""
    return BeamSearchDecoder(
        TOKENS,
        lexicon=write_file("".join(f"{word} {' '.join(word)} |\n" for word in WORDS)),
        lm=write_file(word_arpa()),
        hotwords=["cab"],
        nbest=3,
    )


def test_pickle(write_file):
    decoder, emissions = everything(write_file), random_emissions()
    before = as_tuples(decoder(emissions))
    again = pickle.loads(pickle.dumps(decoder))
    assert as_tuples(again(emissions)) == before == as_tuples(decoder(emissions))


def test_it_decodes_in_a_new_process(write_file):
    decoder, emissions = everything(write_file), random_emissions()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(decoder, emissions, [12] * 6).result()
    assert as_tuples(found) == as_tuples(decoder(emissions))


def test_a_hypothesis_pickles_with_no_others():
    emissions = random_emissions(samples=50, frames=100)
    hypothesis = BeamSearchDecoder(TOKENS, nbest=10)(emissions)[0][0]
    assert len(pickle.dumps(hypothesis)) < 5000  # the tokens of all hypotheses take 400,000


def test_stream():
    """Each batch is read, decoded and yielded before the next."""
    decoder = BeamSearchDecoder(TOKENS)
    emissions = random_emissions()
    batches = [(emissions[:3], None), (emissions[3:5], [4, 12]), (emissions[5:], torch.tensor([7]))]
    reached = []

    def given():
        for number, batch in enumerate(batches):
            reached.append(number)
            yield batch

    stream = decoder.stream(given())
    assert reached == []
    found, when = [], []
    for sample in stream:
        found.append(sample)
        when.append(reached[-1])
    assert when == [0, 0, 0, 1, 1, 2]
    assert as_tuples(found) == expected_tuples(emissions, [12, 12, 12, 4, 12, 7])
