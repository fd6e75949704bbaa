"""`crnn-ext read`: output lines, files, messages and exit status."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.command_line import MAIN, without_throughput
from helpers.random_checkpoint import random_checkpoint

from crnn_ext.cli import main
from crnn_ext.ocr import Architecture, Recognizer, save_checkpoint
from crnn_ext.text import Charset

# Limits files of this process to 30 bytes.
LIMIT = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))"


def test_read_text(checkpoint, images, readings, capsys):
    assert main(["read", checkpoint, *images]) == 0
    output, errors = capsys.readouterr()
    assert without_throughput(errors) == ""
    assert "images/s, 6 images in" in errors
    assert [line.split("\t") for line in output.splitlines()] == [
        [path, reading.text, f"{reading.confidence:.4g}"]
        for path, reading in zip(images, readings, strict=True)
    ]
    assert len({reading.text for reading in readings}) > 3


def test_read_spans(checkpoint, images, readings, capsys):
    assert main(["read", "--spans", checkpoint, *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[3].split() for line in lines] == [
        [f"{character.start}-{character.end}" for character in reading.characters] for reading in readings
    ]
    assert main(["read", "--spans", "--nbest", "2", checkpoint, *images]) == 0
    for line in capsys.readouterr().out.splitlines():
        _, text, *_, spans = line.split("\t")
        assert len(spans.split()) == len(text)


def test_read_json(checkpoint, images, readings, capsys):
    assert main(["read", "--json", checkpoint, *images]) == 0
    for line, path, reading in zip(capsys.readouterr().out.splitlines(), images, readings, strict=True):
        assert json.loads(line) == {
            "path": path,
            "text": reading.text,
            "confidence": pytest.approx(reading.confidence, rel=1e-4),
            "characters": [
                {"character": character, "start": start, "end": end, "confidence": pytest.approx(p, rel=1e-4)}
                for character, start, end, p in reading.characters
            ],
            "alternatives": [],
            "found": True,
        }


def test_read_unreadable_images(checkpoint, images, tmp_path, capsys):
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
    for path, line in zip([nothing, *bad], without_throughput(errors).splitlines(), strict=True):
        assert line.startswith(f"crnn-ext: {path}: ")
    assert main(["read", checkpoint, *bad]) == 2
    before = tmp_path / "before.tsv"
    before.write_text("yesterday's")
    assert main(["read", checkpoint, *bad, "-o", str(before)]) == 2
    assert before.read_text() == "yesterday's"
    assert not list(tmp_path.glob("before.*-of-*"))


def test_read_in_chunks(checkpoint, images, readings, capsys, monkeypatch):
    monkeypatch.setattr("crnn_ext.ocr.reading.recognizer.LOOKAHEAD", 4)
    assert main(["read", checkpoint, *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == [reading.text for reading in readings]


def test_read_nothing(checkpoint, tmp_path, capsys):
    assert main(["read", checkpoint, str(tmp_path), "nothing/*.png"]) == 2
    assert capsys.readouterr() == (
        "",
        f"crnn-ext: {tmp_path}: no images in this folder\n"
        "crnn-ext: nothing/*.png: no such file and no match\n"
        "crnn-ext: no images to read\n",
    )


def test_read_output_file(checkpoint, images, tmp_path, capsys):
    assert main(["read", checkpoint, *images]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "out.tsv"
    out.write_text("before")
    assert main(["read", checkpoint, images[0], str(tmp_path / "missing"), *images[1:], "-o", str(out)]) == 1
    assert capsys.readouterr().out == ""
    assert out.read_text() == printed
    assert os.listdir(tmp_path) == ["out.tsv"]


def test_read_interrupted(checkpoint, images, tmp_path, monkeypatch, capsys):
    prepare = Recognizer.preprocess

    def interrupted(recognizer, image):
        if image == images[4]:
            raise KeyboardInterrupt
        return prepare(recognizer, image)

    monkeypatch.setattr("crnn_ext.ocr.reading.recognizer.LOOKAHEAD", 2)
    out, part = tmp_path / "out.tsv", tmp_path / "out.0-of-1.tsv"
    out.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(Recognizer, "preprocess", interrupted)
        assert main(["read", checkpoint, *images, "-o", str(out)]) == 130
        assert capsys.readouterr().err == f"crnn-ext: {out}: not written; the lines so far are in {part}\n"
        assert out.read_text() == "before"
        assert [line.split("\t")[0] for line in part.read_text().splitlines()] == images[:4]
        part.unlink()
        assert main(["read", checkpoint, images[4], "-o", str(out)]) == 130
        assert os.listdir(tmp_path) == ["out.tsv"]


def test_read_output_errors(checkpoint, images, tmp_path, capsys):
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(images[0]).read_bytes())
    (tmp_path / "link").symlink_to(copy)
    for out, message in [
        (tmp_path, "-o must name a regular file"),
        (tmp_path / "link", "-o must not name an input file"),
        ("/dev/null", "-o must name a regular file"),
        (tmp_path / "missing" / "out.tsv", "the folder does not exist"),
        (copy, "-o must not name an input file"),
        (checkpoint, "-o must not name an input file"),
    ]:
        assert main(["read", checkpoint, str(copy), "-o", str(out)]) == 2
        assert capsys.readouterr() == ("", f"crnn-ext: {out}: {message}\n")
    assert copy.read_bytes() == Path(images[0]).read_bytes()


def test_read_output_does_not_replace_inputs(checkpoint, images, tmp_path, capsys):
    listed, words = tmp_path / "list.txt", tmp_path / "words.txt"
    listed.write_text(images[0])
    words.write_text("a\nb\n")
    for out, arguments in [(listed, [f"@{listed}"]), (words, [images[0], "--lexicon", str(words)])]:
        assert main(["read", checkpoint, *arguments, "-o", str(out)]) == 2
        assert capsys.readouterr() == ("", f"crnn-ext: {out}: -o must not name an input file\n")


def test_read_full_disk(checkpoint, images, tmp_path):
    """The message names the partial file that could not be written."""
    command = [sys.executable, "-B", "-c", f"import resource, signal; {LIMIT}; {MAIN}"]
    result = subprocess.run(
        [*command, "read", checkpoint, *images, "-o", tmp_path / "out.tsv"], stderr=subprocess.PIPE
    )
    part = tmp_path / "out.0-of-1.tsv"
    assert result.returncode == 2
    assert f"crnn-ext: {part}: File too large\n" in result.stderr.decode()


def test_read_progress_bar(checkpoint, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["read", checkpoint, *images, "-o", str(tmp_path / "out.tsv")]) == 0
    assert "6/6" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["read", checkpoint, *images]) == 0
    assert "6/6" not in capsys.readouterr().err


def test_read_checkpoint_errors(images, tmp_path, capsys):
    (tmp_path / "foreign").write_text("text")
    for path, message in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path / "foreign", "not a valid safetensors file"),
    ]:
        assert main(["read", str(path), *images]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.startswith(f"crnn-ext: {path}: {message}")


def test_read_checkpoint_warning_in_one_line(images, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as context:
        context.setattr(Architecture, "to_dict", lambda self: {**asdict(self), "drop\nout": 0.1})
        save_checkpoint(tmp_path / "model", random_checkpoint())
    for _ in range(2):  # the warning appears each time
        assert main(["read", str(tmp_path / "model"), *images]) == 0
        error, _ = capsys.readouterr().err.splitlines()  # and the throughput
        assert error.startswith(f"crnn-ext: {tmp_path}/model: ")
        assert error.endswith(r"ignores unknown settings: 'architecture.drop\nout'")


def test_read_escapes_text(images, tmp_path, capsys):
    checkpoint = random_checkpoint()._replace(charset=Charset("\n\t\u2028"))
    save_checkpoint(tmp_path / "model", checkpoint)
    assert main(["read", str(tmp_path / "model"), *images]) == 0
    texts = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    readings = Recognizer.load(tmp_path / "model")(images)
    for written, character in [(r"\n", "\n"), (r"\t", "\t"), (r"\u2028", "\u2028")]:
        texts = [text.replace(written, character) for text in texts]
    assert texts == [reading.text for reading in readings]


# Any bytes except "/" and 0: a line break, a tab, an escape sequence and invalid UTF-8.
ODD_NAME = b"a\nb\tc\x1b[2Jd\xff\\e.png"
ODD_NAME_PRINTED = r"a\nb\tc\x1b[2Jd\udcff\e.png"


def test_read_escapes_names(checkpoint, images, readings, tmp_path, capsys):
    odd = os.path.join(os.fsencode(tmp_path), ODD_NAME)
    Path(os.fsdecode(odd)).write_bytes(Path(images[0]).read_bytes())
    assert main(["read", checkpoint, os.fsdecode(odd)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.split("\t")[:2] == [f"{tmp_path}/{ODD_NAME_PRINTED}", readings[0].text]

    assert main(["read", "--json", checkpoint, os.fsdecode(odd)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert os.fsencode(json.loads(line)["path"]) == odd

    Path(os.fsdecode(odd)).write_bytes(b"text")
    assert main(["read", checkpoint, os.fsdecode(odd)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"crnn-ext: {tmp_path}/{ODD_NAME_PRINTED}: not an image")
