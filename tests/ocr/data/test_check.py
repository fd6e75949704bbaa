"""crnn-ext check counts and names every line that cannot be trained on."""

import numpy as np
import pytest
import torch
from helpers.command_line import MAIN, run_without
from helpers.dataset_files import FRAKTUR, image_bytes, requires_fraktur, write, write_labels_dataset
from helpers.networks import NETWORKS, small_network
from helpers.random_checkpoint import random_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from crnn_ext.cli import main
from crnn_ext.ctc import ctc_loss
from crnn_ext.ocr import Preprocessing, save_checkpoint
from crnn_ext.ocr.data import open_lines
from crnn_ext.ocr.data.check import check_lines, frames_needed, quantiles
from crnn_ext.text import Charset


def check(folder, charset=None, **options):
    return check_lines(
        open_lines(folder), Preprocessing(), small_network(NETWORKS[0]).output_lengths, charset, **options
    )


def issues_found(report):
    """Return (kind, name) of all problems."""
    return [(kind, problem.name) for kind, problems in report.issues.items() for problem in problems]


@given(label=st.text("ab", min_size=1, max_size=6), frames=st.integers(1, 12))
def test_frames_needed_matches_finite_loss(label, frames):
    """The loss is finite from this number of frames upwards."""
    targets, lengths = Charset("ab").encode(label)
    loss = ctc_loss(torch.zeros(frames, 1, 3), targets[None], [frames], lengths[None])
    assert loss.isfinite().item() == (frames >= frames_needed(label))


@pytest.mark.parametrize("network", NETWORKS)
def test_check_lines_too_few_frames(tmp_path, network):
    """Reports the lines whose label needs more frames than the network outputs."""
    model, preprocessing = small_network(network), Preprocessing()
    write_labels_dataset(tmp_path, {f"{number}.png": "aab" * (3 + number % 4) for number in range(20)})
    source = open_lines(tmp_path)
    with torch.no_grad():
        frames = [len(model(preprocessing(source.image(index, "L"))[None])) for index in range(20)]
    expected = [
        ("too few frames", name)
        for name, label, count in zip(source.names, source.labels, frames, strict=True)
        if count < frames_needed(label)
    ]
    assert 3 < len(expected) < 17
    assert issues_found(check_lines(source, preprocessing, model.output_lengths)) == expected


def test_check_lines_reports_every_problem(tmp_path):
    labels = {
        "fine.png": "abc",
        "narrow.png": "a" * 30,
        "wide.png": "a",
        "limit.png": "a",
        "unknown.png": "abx\u00dfx",
        "damaged.png": "a",
        "text.png": "a",
        "again.png": "b",
        "empty.png": "",
    }
    path = write_labels_dataset(tmp_path, labels)
    with open(path, "a") as file:
        file.write("missing.png\ta\nfine.png\tabc\n")
    write(tmp_path / "wide.png", image_bytes(20_000, 20))
    write(tmp_path / "limit.png", image_bytes(16_384, 32))
    write(tmp_path / "damaged.png", image_bytes(60, seed=99)[:-30])
    write(tmp_path / "text.png", "no image")
    write(tmp_path / "again.png", (tmp_path / "fine.png").read_bytes())

    headers = [
        ("empty label", "empty.png"),
        ("missing image", "missing.png"),
        ("duplicate path", "fine.png"),
        ("too wide", "wide.png"),
        ("unreadable image", "text.png"),
        ("too few frames", "narrow.png"),
        ("characters outside the charset", "unknown.png"),
    ]
    report = check(tmp_path, Charset("abc"))
    assert issues_found(report) == headers
    decoded = check(tmp_path, Charset("abc"), decode=True)
    assert sorted(issues_found(decoded)) == sorted(
        [*headers, ("unreadable image", "damaged.png"), ("duplicate image", "again.png")]
    )
    details = {problem.name: problem.detail for kind in decoded.issues.values() for problem in kind}
    needs = "the label needs 59: 30 characters and 29 blanks between repeated characters"
    assert details["narrow.png"] == f"17, {needs}"
    assert (
        details["wide.png"] == "20000 x 20 pixels, scaled to 32 rows, have 32000 columns; the limit is 16384"
    )
    assert details["again.png"] == "the same file as fine.png, with a different label"
    assert (
        details["unknown.png"]
        == "'x' U+0078 LATIN SMALL LETTER X, '\u00df' U+00DF LATIN SMALL LETTER SHARP S"
    )
    assert report.lines == 8
    assert report.unknown == [("x", 2, "unknown.png"), ("\u00df", 1, "unknown.png")]


def test_check_lines_fixed_width(tmp_path):
    """Each line has the frames of that width; no line is too wide."""
    write_labels_dataset(tmp_path, {"fine.png": "a" * 8, "long.png": "a" * 14, "wide.png": "a"})
    write(tmp_path / "wide.png", image_bytes(20_000, 20))
    model = small_network(NETWORKS[0])
    report = check_lines(open_lines(tmp_path), Preprocessing(width=100), model.output_lengths)
    assert issues_found(report) == [("too few frames", "long.png")]
    assert report.quantiles["frames"] == (26, 26, 26, 26)


def test_check_lines_statistics(tmp_path):
    labels = ["u\u0308", "\u00fc", "u\u0364\u0364", "abab", "aa"]
    write_labels_dataset(tmp_path, {f"{number}.png": label for number, label in enumerate(labels)})
    report = check(tmp_path)
    assert report.issues == {}
    assert report.normalized_to_nfc == ["0.png"]
    assert report.characters == {"\u00fc": 2, "u": 1, "\u0364": 2, "a": 4, "b": 2}
    assert report.clusters == {"\u00fc": 2, "u\u0364\u0364": 1, "a": 4, "b": 2}
    assert report.quantiles == {
        "image width": (40, 42, 44, 44),
        "image height": (20, 20, 20, 20),
        "columns": (64, 67, 70, 70),
        "frames": (17, 17, 18, 18),
        "frames needed": (1, 3, 4, 4),
        "frames to spare": (13, 15, 16, 16),
        "label length": (1, 2, 4, 4),
    }


def test_spread_quantiles():
    assert quantiles(np.random.default_rng(0).permutation(101)) == (0, 50, 95, 100)


def test_check_command_output(tmp_path, capsys):
    path = write_labels_dataset(tmp_path / "data", {f"{number:02}.png": "a" * 30 for number in range(12)})
    with open(path, "a", encoding="utf-8") as file:
        file.write("12.png\tu\u0364\n13.png\tu\u0308\u0364\n")
    write(tmp_path / "data" / "13.png", image_bytes(100))
    write(tmp_path / "charset", "\ufeffa\n\u00fc\n")
    arguments = ["check", str(tmp_path / "data"), "--charset", str(tmp_path / "charset")]
    assert main(arguments) == 1
    output, errors = capsys.readouterr()
    assert errors == ""
    lines = output.splitlines()
    assert lines[:3] == [
        f"{path}: 13 lines",
        "                             min  median    95 %     max",
        "image width                   40      46      51     100",
    ]
    needs = "the label needs 59: 30 characters and 29 blanks between repeated characters"
    frames = [17, 17, 17, 18, 18, 19, 19, 19, 20, 20, 21, 21]
    too_few = [f"    {number:02}.png: {count}, {needs}" for number, count in enumerate(frames)]
    assert lines[9:] == [
        "362 characters, 3 different; 361 grapheme clusters, 2 different",
        "1 different cluster of several characters, most frequent first: \u00fc\u0364",
        "1 label not in NFC, normalized",
        "    13.png",
        "1 different character outside the charset",
        "    '\u0364' U+0364 COMBINING LATIN SMALL LETTER E: 1, first in 13.png",
        "missing image: 1",
        f"    12.png: no file {tmp_path}/data/12.png",
        "too few frames: 12",
        *too_few[:10],
        "    and 2 more (--all names them)",
        "characters outside the charset: 1",
        "    13.png: '\u0364' U+0364 COMBINING LATIN SMALL LETTER E",
    ]
    assert main([*arguments, "--all", "--images"]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith(needs)] == too_few


def test_check_command_no_problems(tmp_path, capsys):
    write_labels_dataset(tmp_path, {"a.png": "abc"})
    for network, frames in [("CRNN", 17), ("CRNN_v2", 18), ("CRNN_res", 16)]:
        assert main(["check", str(tmp_path), "--network", network]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "no problems"
        assert f"frames of {network}".ljust(24) + f"{frames:8}" * 4 in lines


def test_check_command_fixed_width(tmp_path, capsys):
    write_labels_dataset(tmp_path, {"a.png": "a" * 10})
    assert main(["check", str(tmp_path)]) == 1
    assert main(["check", str(tmp_path), "--resize", "fixed:100"]) == 0
    assert f"{'columns':24}" + f"{100:8}" * 4 in capsys.readouterr().out
    assert main(["check", str(tmp_path), "--resize", "wide"]) == 2


def test_check_command_checkpoint(tmp_path, capsys):
    """The charset of the checkpoint is abc."""
    write_labels_dataset(tmp_path / "data", {"a.png": "abc", "b.png": "abcd"})
    save_checkpoint(tmp_path / "model", random_checkpoint())
    assert main(["check", str(tmp_path / "data"), "--checkpoint", str(tmp_path / "model")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "    b.png: 'd' U+0064 LATIN SMALL LETTER D"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["."], ".: no data set found"),
        (["data", "--charset", "nowhere"], "nowhere: No such file or directory"),
        (["data", "--charset", "data/a.png"], "data/a.png: a charset file must be UTF-8"),
        (["data", "--checkpoint", "data/a.png"], "data/a.png: not a valid safetensors file"),
        (["data", "--checkpoint", "model", "--network", "CRNN"], "--checkpoint cannot be combined"),
        (["data", "--workers", "0"], "workers must be in [1, 1024], got 0"),
    ],
)
def test_check_command_errors(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_labels_dataset(tmp_path / "data", {"a.png": "abc"})
    assert main(["check", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("crnn-ext: ")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_check_command_only_skipped_items(tmp_path, capsys):
    write(tmp_path / "labels.txt", "missing.png\ttext\n")
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "missing image: 1",
        f"    missing.png: no file {tmp_path}/missing.png",
    ]


def test_check_command_escapes_control_characters(tmp_path, capsys):
    write(tmp_path / "labels.txt", "\x1b[2J.png\ttext\n")
    assert main(["check", str(tmp_path)]) == 2
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert r"\x1b[2J.png" in output


def test_check_command_without_regex(tmp_path):
    write_labels_dataset(tmp_path, {"a.png": "abc"})
    result = run_without(["regex"], MAIN, "check", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "crnn-ext: crnn_ext.ocr needs regex, which is not installed: install crnn_ext with its extra [ocr]\n"
    )


@requires_fraktur
def test_check_lines_fraktur():
    charset = Charset.from_labels(open_lines(FRAKTUR / "labels_train.txt").labels)
    report = check(FRAKTUR / "labels_val.txt", charset)
    assert report.lines == 260
    assert report.quantiles["image height"] == (40, 40, 40, 40)
    assert report.quantiles["frames to spare"].minimum > 0
    assert set(report.issues) <= {"characters outside the charset"}
    assert report.clusters["a\u0364"] > 0
