"""evaluate and `crnn-ext evaluate`: readings compared with labels."""

import json
import re
import sys

import numpy as np
import pytest
from helpers.in_memory_lines import InMemoryLines
from helpers.stripe_reader import recognizer, stripes
from PIL import Image

from crnn_ext.cli import main
from crnn_ext.ocr import ErrorCounts, ImageError, Recognizer, evaluate

LINES = [
    ("one", stripes("-a-b-c"), "abc"),
    ("two", stripes("aa-a"), "aa"),
    ("three", stripes("-c-c"), "b"),
    ("empty", stripes("---"), "axbyyz"),
    ("five", stripes("ab-c"), "aba"),
]
READABLE = InMemoryLines(LINES)


def test_evaluate_lines_and_metrics():
    evaluation = evaluate(recognizer(), READABLE)
    assert [(line.name, line.truth, line.read, line.errors) for line in evaluation.lines] == [
        ("one", "abc", "abc", 0),
        ("two", "aa", "aa", 0),
        ("three", "b", "cc", 2),
        ("empty", "axbyyz", "", 6),
        ("five", "aba", "abc", 1),
    ]
    assert evaluation.unreadable == []
    assert [line.name for line in evaluation.worst(2)] == ["empty", "three"]
    assert [line.name for line in evaluation.worst(9)] == ["empty", "three", "five"]
    assert evaluation.worst(0) == []
    assert evaluation.unknown == {"y": 2, "x": 1, "z": 1}
    assert evaluation.seconds > 0

    pairs = [(line.truth, line.read) for line in evaluation.lines]
    assert evaluation.metrics == ErrorCounts.from_pairs(pairs).metrics()
    assert evaluation.metrics.overall.cer.rate.value == 9 / 15
    confidences = [line.confidence for line in evaluation.lines]
    assert confidences == [reading.confidence for reading in recognizer()(READABLE.images)]
    assert evaluation.calibration.mean_confidence == pytest.approx(np.mean(confidences))
    assert evaluation.calibration.bins[9].lines == 5
    assert evaluation.calibration.bins[9].accuracy == 2 / 5


def test_evaluate_excludes_unreadable_images():
    missing = ("missing", ImageError("No such file"), "abcabc")
    evaluation = evaluate(recognizer(), InMemoryLines([*LINES[:3], missing, *LINES[3:]]))
    assert evaluation.unreadable == [("missing", "No such file")]
    assert evaluation.metrics == evaluate(recognizer(), READABLE).metrics
    assert [line.name for line in evaluation.lines] == ["one", "two", "three", "empty", "five"]


def test_evaluate_code_points():
    lines = InMemoryLines([("mark", stripes("-a"), "a\u0364")])
    assert evaluate(recognizer(), lines).metrics.overall.cer.substitutions == 1
    assert evaluate(recognizer(), lines, unit="code points").metrics.overall.cer.deletions == 1


def test_evaluate_in_chunks(monkeypatch):
    monkeypatch.setattr("crnn_ext.ocr.reading.recognizer.LOOKAHEAD", 2)
    reader = recognizer()
    evaluation = evaluate(reader, READABLE)
    assert [line.read for line in evaluation.lines] == ["abc", "aa", "cc", "", "abc"]
    assert max(shape[0] for shape in reader.network.batches) <= 2


def test_evaluate_no_lines():
    evaluation = evaluate(recognizer(), InMemoryLines([]))
    assert evaluation.lines == []
    assert evaluation.metrics.overall.cer.rate is None


def test_evaluate_progress_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    evaluate(recognizer(), READABLE)
    assert capsys.readouterr().err == ""
    evaluate(recognizer(), READABLE, progress=True)
    assert "5/5" in capsys.readouterr().err


@pytest.fixture(scope="module")
def lines(checkpoint):
    """Lines, some of which are read correctly."""
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, (32, width), np.uint8) for width in (40, 64, 33, 200, 64, 120)]
    readings = Recognizer.load(checkpoint)(images)
    endings = ["", "", "x", "", " yx", "\u0364"]
    labels = [reading.text + ending for reading, ending in zip(readings, endings, strict=True)]
    return list(zip([f"{index}.png" for index in range(6)], images, labels, strict=True))


@pytest.fixture
def run(checkpoint, tmp_path):
    """Run the command on lines written to a folder; a line without an image is listed only."""

    def run_evaluate(lines, *options, checkpoint=checkpoint):
        for name, image, _ in lines:
            if image is not None:
                Image.fromarray(image).save(tmp_path / name)
        labels = "".join(f"{name}\t{label}\n" for name, _, label in lines)
        (tmp_path / "labels.txt").write_text(labels, encoding="utf-8")
        return main(["evaluate", checkpoint, str(tmp_path), *options])

    return run_evaluate


def test_evaluate_command_json(run, checkpoint, lines, capsys):
    assert run(lines, "--json", "--worst", "2") == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    report = json.loads(output)
    evaluation = evaluate(Recognizer.load(checkpoint), InMemoryLines(lines))
    overall, scores = report["overall"], evaluation.metrics.overall
    assert report["lines"] == overall["lines"] == 6
    assert overall["cer"]["rate"] == {
        "value": scores.cer.rate.value,
        "low": scores.cer.rate.low,
        "high": scores.cer.rate.high,
    }
    assert overall["cer"]["insertions"] == 0
    assert overall["cer"]["deletions"] == 4
    assert overall["cer"]["substitutions"] == 1
    assert overall["accuracy"]["value"] == 3 / 6
    assert report["unit"] == "graphemes"
    assert report["unknown"] == {"x": 2, " ": 1, "y": 1, "\u0364": 1}
    assert report["unreadable"] == []
    assert [(line["name"], line["errors"]) for line in report["worst"]] == [("4.png", 3), ("2.png", 1)]
    assert sum(bin_["lines"] for bin_ in report["calibration"]["bins"]) == 6
    assert report["confusions"][0] == {"truth": "x", "read": "", "count": 2}
    assert report["seconds"] > 0


def test_evaluate_command_text(run, checkpoint, lines, capsys):
    assert run(lines) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    metrics = evaluate(Recognizer.load(checkpoint), InMemoryLines(lines)).metrics
    cer = metrics.overall.cer
    assert re.match(r"[\d,.]+ lines/s, 6 lines in ", output)
    rows = [line.split() for line in output.splitlines()]
    [row] = [row for row in rows if row[:2] == ["all", "lines"]]
    assert row[2:5] == [
        "6",
        f"{100 * cer.rate.value:.2f}",
        f"[{100 * cer.rate.low:.2f},",
    ]
    assert ["characters", f"{cer.units}", "5", "1", "0", "4"] in rows
    assert "in the truth, but not in the charset: 'x' 2, ' ' 1, 'y' 1, '\u0364' 1" in output
    assert ["'x'", "''", "2"] in rows
    for length in metrics.by_length:
        assert ["length", length] in [row[:2] for row in rows]
    first = output.index("4.png: 3 errors, confidence 0.")
    assert first < output.index("2.png: 1 error, ")
    assert "0.png" not in output
    assert "x\n  read   " in output[first:]


def test_evaluate_command_no_errors(run, lines, capsys):
    assert run(lines[:2]) == 0
    output = capsys.readouterr().out
    for heading in ("not in the charset", "times", ".png"):
        assert heading not in output


def test_evaluate_command_options(run, lines, capsys):
    assert run(lines[5:], "--json", "--code-points", "--beam", "4", "--worst", "0") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unit"] == "code points"
    assert report["worst"] == []
    assert report["overall"]["cer"]["units"] == len(lines[5][2])


def test_evaluate_command_unreadable_lines(run, lines, tmp_path, capsys):
    (tmp_path / "damaged.png").write_text("text")
    unusable = [("gone.png", None, "abc"), ("damaged.png", None, "abc")]
    assert run([*lines, *unusable], "--json") == 1
    output, errors = capsys.readouterr()
    report = json.loads(output)
    assert report["lines"] == 6
    assert [line["name"] for line in report["unreadable"]] == ["damaged.png"]
    skipped, unreadable = errors.splitlines()
    assert skipped.startswith(f"crnn-ext: {tmp_path}: gone.png: missing image")
    assert unreadable.startswith(f"crnn-ext: {tmp_path}: damaged.png: not an image in a known format")

    assert run(unusable[1:]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.splitlines()[-1] == f"crnn-ext: {tmp_path}: no readable line"
    assert run([("gone.png", None, "abc")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(": no readable line")


def test_evaluate_command_errors(run, checkpoint, lines, capsys):
    for options, message in [
        (["--worst", "-1"], "--worst must be at least 0, got -1"),
        (["--beam", "0"], "beam_size must be in [1, 1024], got 0"),
        (["--lm", "nothing.arpa"], "No such file"),
    ]:
        assert run(lines, *options) == 2
        assert message in capsys.readouterr().err
    assert main(["evaluate", checkpoint, "nowhere"]) == 2
    assert capsys.readouterr().err == "crnn-ext: nowhere: no such file or folder\n"
    assert run(lines, checkpoint="missing.safetensors") == 2
    assert capsys.readouterr().err == "crnn-ext: missing.safetensors: No such file or directory\n"
