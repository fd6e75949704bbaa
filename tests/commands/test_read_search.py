"""`crnn-ext read` with beam-search options: language model, lexicon, hot words."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import without_throughput
from helpers.random_checkpoint import random_checkpoint

from crnn_ext.cli import main
from crnn_ext.ocr import BeamSearch, DecodedText, Recognizer, save_checkpoint
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel


@pytest.fixture(scope="module")
def word_list(checkpoint):
    path = Path(checkpoint).parent / "words.txt"
    path.write_text("a\nab\n\nabc\nb\nx\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def arpa(checkpoint):
    path = Path(checkpoint).parent / "abc.arpa"
    units = ["<unk>", "<s>", "</s>", *"abc"]
    lines = [f"{-99 if unit == '<s>' else -0.7}\t{unit}" for unit in units]
    path.write_text("\n".join(["\\data\\", "ngram 1=6", "", "\\1-grams:", *lines, "", "\\end\\", ""]))
    return str(path)


def test_read_beam_search(checkpoint, images, word_list, arpa, capsys):
    recognizer = Recognizer.load(checkpoint)
    charset = recognizer.charset
    lexicon = Lexicon.from_words(["a", "ab", "abc", "b"], charset)
    recognizer.decoding = BeamSearch(
        charset,
        beam_size=8,
        nbest=3,
        lm=NGramModel.from_arpa(arpa, charset),
        lm_weight=0.25,
        lexicon=lexicon,
        hotwords=HotWords.from_words(["ab", "b"], charset),
        hotword_weight=2.0,
    )
    options = ["--beam", "8", "--nbest", "3", "--lm", arpa, "--lm-weight", "0.25", "--lexicon", word_list]
    options += ["--hotword", "ab", "--hotword", "b", "--hotword-weight", "2"]
    assert main(["read", checkpoint, *images, *options]) == 0
    output, errors = capsys.readouterr()
    assert without_throughput(errors) == (
        f"crnn-ext: {word_list}: ignored 1 of 5 words: the network lacks some of their characters\n"
    )
    expected = recognizer(images)
    for line, path, reading in zip(output.splitlines(), images, expected, strict=True):
        texts = [(reading.text, reading.confidence), *reading.alternatives]
        assert line.split("\t") == [path, *(part for text, p in texts for part in (text, f"{p:.4g}"))]
        assert {text for text, _ in texts} <= {"", "a", "ab", "abc", "b"}
    assert max(len(reading.alternatives) for reading in expected) == 2


def test_read_word_lm(checkpoint, images, word_list, arpa, capsys):
    options = ["--lexicon", word_list, "--unknown-score", "-3", "--lm", arpa, "--lm-units", "words"]
    assert main(["read", "--json", checkpoint, images[0], *options]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == images[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "0"], "beam_size must be in [1, 1024], got 0"),
        (["--nbest", "17"], "nbest must be in [1, 16], got 17"),
        (["--lm", "nothing.arpa"], "nothing.arpa: No such file or directory"),
        (["--lexicon", "/proc/self/mem"], "/proc/self/mem: Input/output error"),
        (["--lm", "ARPA", "--lm-units", "words"], "--lm-units words needs --lexicon"),
        (["--lexicon", "IMAGE"], "IMAGE: a lexicon file must be UTF-8"),
        (
            ["--lexicon", "/dev/null"],
            "--lexicon /dev/null: from_words: words must not be empty",
        ),
        (
            ["--hotword", "xyz"],
            "--hotword: from_words: words must consist of characters of the charset, but 1 of 1 do not, such "
            "as 'xyz'; the charset lacks 'x' (U+0078), 'y' (U+0079), 'z' (U+007A)",
        ),
        (
            ["--lm", "ARPA", "--lm-space", "|"],
            "from_arpa: space must be None if ' ' is not a token, got '|'",
        ),
        (["--lm-units", "words", "--lexicon", "/dev/null"], "--lm-units needs --lm"),
        (["--lm-space", "|"], "--lm-space needs --lm"),
        (["--lm-weight", "0.5"], "--lm-weight needs --lm"),
        (["--unknown-score", "0", "--beam", "4"], "--unknown-score needs --lexicon"),
        (["--hotword-weight", "0"], "--hotword-weight needs --hotword"),
        (["--hotword", "a", "--hotword-weight", "nan"], "hotword_weight must be finite, got nan"),
    ],
)
def test_read_search_option_errors(checkpoint, images, arpa, capsys, options, message):
    files = {"ARPA": arpa, "IMAGE": images[0]}
    assert main(["read", checkpoint, images[0], *(files.get(option, option) for option in options)]) == 2
    assert capsys.readouterr() == ("", f"crnn-ext: {message.replace('IMAGE', images[0])}\n")


def test_read_lexicon_file_variants(checkpoint, images, tmp_path, capsys):
    """A byte order mark, and one word in two Unicode normal forms."""
    (tmp_path / "words").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert main(["read", checkpoint, *images, "--lexicon", str(tmp_path / "words")]) == 0
    output, errors = capsys.readouterr()
    assert without_throughput(errors) == ""
    assert {line.split("\t")[1] for line in output.splitlines()} <= {"", "a", "b"}
    save_checkpoint(tmp_path / "model", random_checkpoint()._replace(charset=Charset("a\u00e9c")))
    (tmp_path / "words").write_text("\u00e9\ne\u0301\n", encoding="utf-8")
    assert main(["read", str(tmp_path / "model"), *images, "--lexicon", str(tmp_path / "words")]) == 0
    assert without_throughput(capsys.readouterr().err) == ""


def test_read_lm_space(images, tmp_path, capsys):
    parts = random_checkpoint()._replace(charset=Charset("a b"))
    save_checkpoint(tmp_path / "model", parts)
    units = {"<unk>": -9, "<s>": -99, "</s>": -1, "a": -1, "b": -1, "|": -0.1, "_": -9}
    lines = [f"{log10_prob}\t{unit}" for unit, log10_prob in units.items()]
    arpa = tmp_path / "model.arpa"
    arpa.write_text("\n".join(["\\data\\", "ngram 1=7", "", "\\1-grams:", *lines, "", "\\end\\", ""]))
    read = ["read", str(tmp_path / "model"), *images, "--lm", str(arpa), "--lm-weight", "2"]
    assert main(read) == 2
    assert "space must name the unit" in capsys.readouterr().err
    recognizer = Recognizer.load(tmp_path / "model")
    printed = []
    for space in ("|", "_", "<unk>"):
        lm = NGramModel.from_arpa(arpa, parts.charset, space=space)
        recognizer.decoding = BeamSearch(parts.charset, lm=lm, lm_weight=2.0)
        assert main([*read, "--lm-space", space]) == 0
        printed.append([line.split("\t")[1] for line in capsys.readouterr().out.splitlines()])
        assert printed[-1] == [reading.text for reading in recognizer(images)]
    assert printed[0] != printed[1]


def test_read_search_no_text_found(checkpoint, images, tmp_path, capsys):
    """A beam of one prefix follows the only word of the lexicon, which has more characters than frames."""
    recognizer = Recognizer.load(checkpoint)
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("abc" * 30)
    charset = recognizer.charset
    recognizer.decoding = BeamSearch(charset, beam_size=1, lexicon=Lexicon.from_words(["abc" * 30], charset))
    readings = recognizer(images)
    nothing = [not reading.found for reading in readings]
    assert nothing == [reading == ("", 0.0, [], [], False) for reading in readings]
    assert any(nothing)
    options = ["--beam", "1", "--lexicon", str(lexicon)]
    assert main(["read", checkpoint, *images, *options]) == 1
    output, errors = capsys.readouterr()
    assert [
        line.split("\t") == [path, "", "0"] for path, line in zip(images, output.splitlines(), strict=True)
    ] == nothing
    assert without_throughput(errors) == "".join(
        f"crnn-ext: {path}: the search found no text of the lexicon; try a larger --beam\n"
        for path, is_nothing in zip(images, nothing, strict=True)
        if is_nothing
    )
    assert main(["read", "--json", checkpoint, *images, *options]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [not json.loads(line)["found"] for line in lines] == nothing
    assert main(["read", checkpoint, *images, *options, "--unknown-score", "0"]) == 0
    assert without_throughput(capsys.readouterr().err) == ""


def test_recognizer_empty_text_is_found():
    """`found` holds even if the probability of the text underflows."""

    def empty_or_none(found):
        texts = [DecodedText("", 0.0, [], [], [])] if found else []
        return lambda logits, lengths, charset: [texts] * len(lengths)

    network, _, charset, preprocessing, *_ = random_checkpoint()
    image = np.zeros((32, 40), np.uint8)
    for found in (True, False):
        recognizer = Recognizer(network, charset, preprocessing, empty_or_none(found))
        assert recognizer([image]) == [("", 0.0, [], [], found)]
