"""The command `crnn-ext`: its output, its messages and its exit status."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_network import random_checkpoint

import crnn_ext
from crnn_ext.cli import main
from crnn_ext.commands import device
from crnn_ext.commands.messages import warnings_in_one_line
from crnn_ext.ocr import Architecture, BeamSearch, Decoded, Recognizer, save_checkpoint
from crnn_ext.text import Charset, HotWords, Lexicon, NGramModel

MAIN = "from crnn_ext.cli import main; raise SystemExit(main())"
SIZES = [(40, 32), (64, 32), (33, 17), (1, 90), (200, 12), (64, 32)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "model.safetensors"
    save_checkpoint(path, random_checkpoint())
    return str(path)


@pytest.fixture(scope="module")
def images(checkpoint):
    noise = np.random.default_rng(0)
    paths = [f"{Path(checkpoint).parent}/{index}.{'jpg' if index % 2 else 'png'}" for index in range(6)]
    for path, (width, height) in zip(paths, SIZES, strict=True):
        Image.fromarray(noise.integers(0, 256, (height, width), np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def readings(checkpoint, images):
    return Recognizer.load(checkpoint)(images)


def complaints(errors):
    """Standard error without its last line, which tells the throughput."""
    *lines, last = errors.splitlines(keepends=True)
    assert re.fullmatch(r"[\d,.]+ images/s, [\d,]+ images? in [\d.]+ s\n", last)
    return "".join(lines)


def test_read_prints_a_line_for_each_image(checkpoint, images, readings, capsys):
    assert main(["read", checkpoint, *images]) == 0
    output, errors = capsys.readouterr()
    assert complaints(errors) == ""
    assert "images/s, 6 images in" in errors
    assert [line.split("\t") for line in output.splitlines()] == [
        [path, reading.text, f"{reading.confidence:.4f}"]
        for path, reading in zip(images, readings, strict=True)
    ]
    assert len({reading.text for reading in readings}) > 3


def test_read_json(checkpoint, images, readings, capsys):
    assert main(["read", "--json", checkpoint, *images]) == 0
    for line, path, reading in zip(capsys.readouterr().out.splitlines(), images, readings, strict=True):
        assert json.loads(line) == {
            "path": path,
            "text": reading.text,
            "confidence": pytest.approx(reading.confidence, rel=1e-4),
            "characters": [
                {"character": character, "start": start, "end": end}
                for character, start, end in reading.characters
            ],
            "alternatives": [],
            "found": True,
        }


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


def test_read_with_beam_search(checkpoint, images, word_list, arpa, capsys):
    recognizer = Recognizer.load(checkpoint)
    charset = recognizer.charset
    lexicon = Lexicon.from_words(["a", "ab", "abc", "b"], charset)
    recognizer.decoding = BeamSearch(
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
    assert complaints(errors) == (
        f"crnn-ext: {word_list}: of 5 words, 4 have only characters that the network reads; the others are "
        "left out\n"
    )
    expected = recognizer(images)
    for line, path, reading in zip(output.splitlines(), images, expected, strict=True):
        texts = [(reading.text, reading.confidence), *reading.alternatives]
        assert line.split("\t") == [path, *(part for text, p in texts for part in (text, f"{p:.4f}"))]
        assert {text for text, _ in texts} <= {"", "a", "ab", "abc", "b"}
    assert max(len(reading.alternatives) for reading in expected) == 2


def test_read_with_a_model_over_words(checkpoint, images, word_list, arpa, capsys):
    options = ["--lexicon", word_list, "--unknown-score", "-3", "--lm", arpa, "--lm-units", "words"]
    assert main(["read", "--json", checkpoint, images[0], *options]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == images[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "0"], "beam_size must be in [1, 1024], and it is 0"),
        (["--nbest", "17"], "nbest must be in [1, 16], and it is 17"),
        (["--lm", "nothing.arpa"], "nothing.arpa: No such file or directory"),
        (["--lexicon", "/proc/self/mem"], "[Errno 5] Input/output error"),
        (["--lm", "ARPA", "--lm-units", "words"], "--lm-units words needs --lexicon"),
        (["--lexicon", "IMAGE"], "IMAGE: a lexicon must be in UTF-8, and this file is not"),
        (
            ["--lexicon", "/dev/null"],
            "--lexicon /dev/null: from_words: words must be one or more, and there are none",
        ),
        (
            ["--hotword", "xyz"],
            "--hotword: from_words: words must hold characters of the charset only, and 1 of 1 do not, such "
            "as 'xyz'; the charset lacks 'x' (U+0078), 'y' (U+0079), 'z' (U+007A)",
        ),
        (
            ["--lm", "ARPA", "--lm-space", "|"],
            "from_arpa: space must be None if no token is the separator ' ', and it is '|'",
        ),
        (["--lm-units", "words", "--lexicon", "/dev/null"], "--lm-units needs --lm"),
        (["--lm-space", "|"], "--lm-space needs --lm"),
        (["--lm-weight", "0.5"], "--lm-weight needs --lm"),
        (["--unknown-score", "0", "--beam", "4"], "--unknown-score needs --lexicon"),
        (["--hotword-weight", "0"], "--hotword-weight needs --hotword"),
        (["--hotword", "a", "--hotword-weight", "nan"], "hotword_weight must be finite, and it is nan"),
    ],
)
def test_options_of_the_search_that_break_their_rule(checkpoint, images, arpa, capsys, options, message):
    files = {"ARPA": arpa, "IMAGE": images[0]}
    assert main(["read", checkpoint, images[0], *(files.get(option, option) for option in options)]) == 2
    assert capsys.readouterr() == ("", f"crnn-ext: {message.replace('IMAGE', images[0])}\n")


def test_what_a_model_calls_the_space(images, tmp_path, capsys):
    parts = random_checkpoint()._replace(charset=Charset("a b"))
    save_checkpoint(tmp_path / "model", parts)
    units = {"<unk>": -9, "<s>": -99, "</s>": -1, "a": -1, "b": -1, "|": -0.1, "_": -9}
    lines = [f"{log10_prob}\t{unit}" for unit, log10_prob in units.items()]
    arpa = tmp_path / "model.arpa"
    arpa.write_text("\n".join(["\\data\\", "ngram 1=7", "", "\\1-grams:", *lines, "", "\\end\\", ""]))
    read = ["read", str(tmp_path / "model"), *images, "--lm", str(arpa), "--lm-weight", "2"]
    assert main(read) == 2
    assert "space must say which unit" in capsys.readouterr().err
    recognizer = Recognizer.load(tmp_path / "model")
    printed = []
    for space in ("|", "_", "<unk>"):
        lm = NGramModel.from_arpa(arpa, parts.charset, space=space)
        recognizer.decoding = BeamSearch(lm=lm, lm_weight=2.0)
        assert main([*read, "--lm-space", space]) == 0
        printed.append([line.split("\t")[1] for line in capsys.readouterr().out.splitlines()])
        assert printed[-1] == [reading.text for reading in recognizer(images)]
    assert printed[0] != printed[1]


def test_a_search_that_finds_no_text(checkpoint, images, tmp_path, capsys):
    """A beam of one prefix follows the only word of the lexicon, and the frames end before it does."""
    recognizer = Recognizer.load(checkpoint)
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("abc" * 30)
    recognizer.decoding = BeamSearch(
        beam_size=1, lexicon=Lexicon.from_words(["abc" * 30], recognizer.charset)
    )
    readings = recognizer(images)
    nothing = [not reading.found for reading in readings]
    assert nothing == [reading == ("", 0.0, [], [], False) for reading in readings]
    assert any(nothing)
    options = ["--beam", "1", "--lexicon", str(lexicon)]
    assert main(["read", checkpoint, *images, *options]) == 1
    output, errors = capsys.readouterr()
    assert [
        line.split("\t") == [path, "", "0.0000"]
        for path, line in zip(images, output.splitlines(), strict=True)
    ] == nothing
    assert complaints(errors) == "".join(
        f"crnn-ext: {path}: the search has found no text of the lexicon; a larger --beam may\n"
        for path, is_nothing in zip(images, nothing, strict=True)
        if is_nothing
    )
    assert main(["read", "--json", checkpoint, *images, *options]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [not json.loads(line)["found"] for line in lines] == nothing
    assert main(["read", checkpoint, *images, *options, "--unknown-score", "0"]) == 0
    assert complaints(capsys.readouterr().err) == ""


def test_an_empty_text_of_a_lexicon_is_a_text():
    """Also where its probability is too small for a float: that the search found it is what counts."""

    def empty_or_none(found):
        return lambda logits, lengths, charset: [[Decoded("", 0.0, [], [])] if found else []] * len(lengths)

    network, _, charset, preprocessing, *_ = random_checkpoint()
    image = np.zeros((32, 40), np.uint8)
    for found in (True, False):
        recognizer = Recognizer(network, charset, preprocessing, empty_or_none(found))
        assert recognizer([image]) == [("", 0.0, [], [], found)]


def test_images_that_cannot_be_read_are_named_and_the_others_read(checkpoint, images, tmp_path, capsys):
    text, empty, cut = tmp_path / "text.png", tmp_path / "empty.jpg", tmp_path / "cut.jpg"
    text.write_text("text")
    empty.write_bytes(b"")
    cut.write_bytes(Path(images[1]).read_bytes()[:-99])
    folder = tmp_path / "folder"
    folder.mkdir()
    nothing, bad = str(folder), [str(text), str(empty), str(cut), str(tmp_path / "missing.png")]
    assert main(["read", checkpoint, images[0], nothing, *bad, images[1]]) == 1
    output, errors = capsys.readouterr()
    assert [line.split("\t")[0] for line in output.splitlines()] == images[:2]
    for path, line in zip([nothing, *bad], complaints(errors).splitlines(), strict=True):
        assert line.startswith(f"crnn-ext: {path}: ")
    assert main(["read", checkpoint, *bad]) == 1


def test_more_images_than_are_held_at_a_time(checkpoint, images, readings, capsys, monkeypatch):
    monkeypatch.setattr("crnn_ext.ocr.recognizer.IMAGES_AT_A_TIME", 4)
    assert main(["read", checkpoint, *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == [reading.text for reading in readings]


def test_nothing_to_read(checkpoint, tmp_path, capsys):
    assert main(["read", checkpoint, str(tmp_path), "nothing/*.png"]) == 2
    assert capsys.readouterr() == (
        "",
        f"crnn-ext: {tmp_path}: no image is in this folder\n"
        "crnn-ext: nothing/*.png: no such file, and none that matches\n"
        "crnn-ext: there is nothing to read\n",
    )


def test_lines_go_to_a_file(checkpoint, images, tmp_path, capsys):
    assert main(["read", checkpoint, *images]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "out.tsv"
    out.write_text("before")
    assert main(["read", checkpoint, images[0], str(tmp_path / "missing"), *images[1:], "-o", str(out)]) == 1
    assert capsys.readouterr().out == ""
    assert out.read_text() == printed
    assert os.listdir(tmp_path) == ["out.tsv"]


def test_an_interrupted_run_leaves_the_file_and_what_was_read(
    checkpoint, images, tmp_path, monkeypatch, capsys
):
    prepare = Recognizer.prepare

    def interrupted(recognizer, image):
        if image == images[4]:
            raise KeyboardInterrupt
        return prepare(recognizer, image)

    monkeypatch.setattr("crnn_ext.ocr.recognizer.IMAGES_AT_A_TIME", 2)
    out, part = tmp_path / "out.tsv", tmp_path / "out.0-of-1.tsv"
    out.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(Recognizer, "prepare", interrupted)
        assert main(["read", checkpoint, *images, "-o", str(out)]) == 130
        assert capsys.readouterr().err == f"crnn-ext: {out}: not written; what was read is in {part}\n"
        assert out.read_text() == "before"
        assert [line.split("\t")[0] for line in part.read_text().splitlines()] == images[:4]
        part.unlink()
        assert main(["read", checkpoint, images[4], "-o", str(out)]) == 130
        assert os.listdir(tmp_path) == ["out.tsv"]


def test_files_that_cannot_be_written(checkpoint, images, tmp_path, capsys):
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(images[0]).read_bytes())
    for out, message in [
        (tmp_path, "-o must name a file, and this is none"),
        ("/dev/null", "-o must name a file, and this is none"),
        (tmp_path / "missing" / "out.tsv", "there is no such folder"),
        (copy, "-o would replace what is read"),
        (checkpoint, "-o would replace what is read"),
    ]:
        assert main(["read", checkpoint, str(copy), "-o", str(out)]) == 2
        assert capsys.readouterr() == ("", f"crnn-ext: {out}: {message}\n")
    assert copy.read_bytes() == Path(images[0]).read_bytes()
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [sys.executable, "-c", MAIN, "read", checkpoint, copy], stdout=full, stderr=subprocess.PIPE
            )
        assert result.stderr == b"crnn-ext: standard output: No space left on device\n"
        assert result.returncode == 2


def test_a_bar_where_the_lines_go_elsewhere(checkpoint, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["read", checkpoint, *images, "-o", str(tmp_path / "out.tsv")]) == 0
    assert "6/6" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["read", checkpoint, *images]) == 0
    assert "6/6" not in capsys.readouterr().err


def test_devices(checkpoint, images, monkeypatch, capsys):
    for name, message in [
        ("gpu", "--device must be cpu, cuda or cuda:N, and it is 'gpu'"),
        ("meta", "--device must be cpu, cuda or cuda:N, and it is 'meta'"),
        ("cuda:1", "--device cuda:1: torch finds no CUDA GPU"),
    ]:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert main(["read", checkpoint, images[0], "--device", name]) == 2
        assert capsys.readouterr() == ("", f"crnn-ext: {message}\n")
    assert main(["read", checkpoint, images[0], "--device", "cpu"]) == 0


def test_which_device_is_chosen(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("crnn_ext._load.library_path", lambda name: None)
    assert device.chosen(None) == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda: crnn_ext was built without CUDA"):
        device.chosen("cuda")
    monkeypatch.setattr("crnn_ext._load.library_path", Path)
    assert device.chosen(None) == torch.device("cuda:0")
    assert device.chosen("cuda", local_rank=1) == torch.device("cuda:1")
    assert device.chosen("cuda:0", local_rank=1) == torch.device("cuda:0")
    assert device.chosen("cpu", local_rank=1) == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda: the index must be below 2, the number of GPUs, and"):
        device.chosen("cuda", local_rank=2)


def test_unusable_checkpoints(images, tmp_path, capsys):
    (tmp_path / "foreign").write_text("text")
    for path, message in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path / "foreign", "it is no whole safetensors file"),
    ]:
        assert main(["read", str(path), *images]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.startswith(f"crnn-ext: {path}: {message}")


def test_weights_that_overflow(images, tmp_path, capsys):
    checkpoint = random_checkpoint()
    checkpoint.network.rnn[1].embedding.weight.data.fill_(3e38)
    checkpoint.network.rnn[1].embedding.bias.data.fill_(3e38)
    save_checkpoint(tmp_path / "model", checkpoint)
    assert main(["read", str(tmp_path / "model"), *images]) == 2
    assert "model: the network gave logits that are not finite" in capsys.readouterr().err


def test_warnings_of_a_checkpoint_take_one_line(images, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as context:
        context.setattr(Architecture, "to_dict", lambda self: {**asdict(self), "drop\nout": 0.1})
        save_checkpoint(tmp_path / "model", random_checkpoint())
    for _ in range(2):  # each time
        assert main(["read", str(tmp_path / "model"), *images]) == 0
        error, _ = capsys.readouterr().err.splitlines()  # and the throughput
        assert error.startswith(f"crnn-ext: {tmp_path}/model: ")
        assert error.endswith(r"does not know, and leaves out, 'architecture.drop\nout'")


def test_other_warnings_are_shown_as_python_does(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("warnings.showwarning", lambda *arguments: shown.append(arguments))
    with warnings_in_one_line():
        warnings.warn("not ours", UserWarning, stacklevel=1)
    assert [(str(message), category) for message, category, *_ in shown] == [("not ours", UserWarning)]
    assert capsys.readouterr().err == ""


def test_a_text_takes_one_line(images, tmp_path, capsys):
    checkpoint = random_checkpoint()._replace(charset=Charset("\n\t\u2028"))
    save_checkpoint(tmp_path / "model", checkpoint)
    assert main(["read", str(tmp_path / "model"), *images]) == 0
    texts = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    readings = Recognizer.load(tmp_path / "model")(images)
    for written, character in [(r"\n", "\n"), (r"\t", "\t"), (r"\u2028", "\u2028")]:
        texts = [text.replace(written, character) for text in texts]
    assert texts == [reading.text for reading in readings]


# A name may hold any bytes but "/" and 0: these are a line break, a tab, an escape sequence and no UTF-8.
ODD_NAME = b"a\nb\tc\x1b[2Jd\xff\\e.png"
ODD_NAME_PRINTED = r"a\nb\tc\x1b[2Jd\udcff\e.png"


def test_odd_names_take_one_line(checkpoint, images, readings, tmp_path, capsys):
    odd = os.path.join(os.fsencode(tmp_path), ODD_NAME)
    Path(os.fsdecode(odd)).write_bytes(Path(images[0]).read_bytes())
    assert main(["read", checkpoint, os.fsdecode(odd)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.split("\t")[:2] == [f"{tmp_path}/{ODD_NAME_PRINTED}", readings[0].text]

    assert main(["read", "--json", checkpoint, os.fsdecode(odd)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert os.fsencode(json.loads(line)["path"]) == odd

    Path(os.fsdecode(odd)).write_bytes(b"text")
    assert main(["read", checkpoint, os.fsdecode(odd)]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"crnn-ext: {tmp_path}/{ODD_NAME_PRINTED}: it is no image")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["read"], ["read", "model"], ["write"], ["read", "--fast", "a", "b"]),
        ["read", "--js", "a", "b"],  # there are no abbreviations
        ["read", "a", "b", "--lm-w", "2"],
        ["--he"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: crnn-ext" in capsys.readouterr().err


def test_no_command(capsys):
    assert main([]) == 2
    assert "read the text in images" in capsys.readouterr().err


def test_help(capsys):
    for arguments in (["--help"], ["read", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    assert "CHECKPOINT IMAGE [IMAGE ...]" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"crnn_ext {crnn_ext.__version__}\n"


def test_as_a_module():
    result = subprocess.run([sys.executable, "-m", "crnn_ext", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: crnn-ext ")


@pytest.fixture(scope="module")
def command():
    """How a shell would start the command: by the script that the installation wrote, where there is one."""
    try:
        scripts = importlib.metadata.distribution("crnn_ext").entry_points
    except importlib.metadata.PackageNotFoundError:  # built in place
        return [sys.executable, "-c", MAIN]
    assert [script.value for script in scripts if script.name == "crnn-ext"] == ["crnn_ext.cli:main"]
    return [Path(sys.executable).parent / "crnn-ext"]


def test_as_a_process(command, checkpoint, images, readings, tmp_path):
    """With an output that cannot show the name of a file."""
    path = tmp_path / "\N{SNOWMAN}.png"
    path.write_bytes(Path(images[0]).read_bytes())
    result = subprocess.run(
        [*command, "read", checkpoint, path],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (result.returncode, complaints(result.stderr.decode())) == (0, "")
    assert result.stdout.decode().split("\t")[:2] == [f"{tmp_path}/\\u2603.png", readings[0].text]


def test_a_reader_that_closes_early_hears_no_complaint(command, checkpoint, images):
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        [*command, "read", checkpoint, *images], env=buffered, stdout=write_end, stderr=subprocess.PIPE
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (1, b"")


def test_without_the_extra():
    """The rest of the package works without what reading images needs, and the command says what that is."""
    hidden = "import sys; sys.modules.update(dict.fromkeys(['PIL', 'safetensors', 'tqdm', 'matplotlib'])); "
    result = subprocess.run(
        [sys.executable, "-c", f"{hidden} import crnn_ext; {MAIN}", "read", "model", "image"],
        capture_output=True,
        text=True,
    )
    assert result.stderr == (
        "crnn-ext: crnn_ext.ocr needs PIL, which is not installed: install crnn_ext with its extra [ocr]\n"
    )
    assert (result.returncode, result.stdout) == (2, "")
