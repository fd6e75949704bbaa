"""open_lines recognizes every layout and names each unusable line with the reason."""

import json
import os
import pickle
import unicodedata

import pytest
from helpers.dataset_files import (
    image_bytes,
    write,
    write_doctr_dataset,
    write_kraken_dataset,
    write_labels_dataset,
    write_lmdb_dataset,
)
from hypothesis import given
from hypothesis import strategies as st

from crnn_ext.ocr import ImageError
from crnn_ext.ocr.data import DataError, open_lines

LABELS = ["first line", "zweite Zeile", "τρίτη"]


def skipped_items(source):
    return [tuple(problem) for problem in source.skipped]


def write_labels_layout(folder):
    write_labels_dataset(folder, {f"images/{number}.png": label for number, label in enumerate(LABELS)})


def write_kraken_layout(folder):
    write_kraken_dataset(folder, {f"page/{number}": label for number, label in enumerate(LABELS)})


def write_doctr_layout(folder):
    write_doctr_dataset(folder, {f"{number}.png": label for number, label in enumerate(LABELS)})


def write_lmdb_layout(folder):
    write_lmdb_dataset(folder, LABELS)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (write_labels_layout, [f"images/{number}.png" for number in range(3)]),
        (write_kraken_layout, [f"page/{number}.png" for number in range(3)]),
        (write_doctr_layout, [f"{number}.png" for number in range(3)]),
        (write_lmdb_layout, [f"image-00000000{number}" for number in (1, 2, 3)]),
    ],
)
def test_open_lines_layout(tmp_path, make, names):
    make(tmp_path / "data")
    source = open_lines(tmp_path / "data")
    assert len(source) == 3
    assert list(source.names) == names
    assert list(source.labels) == LABELS
    assert skipped_items(source) == []
    for opened in (source, pickle.loads(pickle.dumps(source))):
        for index in range(3):
            assert opened.image_size(index) == opened.image(index, "L").size == (40 + index, 20)
            assert opened.image_bytes(index) == image_bytes(40 + index, seed=index)
        assert opened.image(0, "RGB").mode == "RGB"


@pytest.mark.parametrize(
    "name", ["labels.txt", "gt.txt", "labels_train.txt", "labels-val.tsv", "gt_test.txt"]
)
def test_open_lines_label_file_names(tmp_path, name):
    path = write_labels_dataset(tmp_path, {"a.png": "a"}, name)
    assert list(open_lines(tmp_path).labels) == list(open_lines(path).labels) == ["a"]


def test_open_lines_label_file_path(tmp_path):
    path = write_labels_dataset(tmp_path, {"a.png": "a"}, "lines of today.txt")
    assert list(open_lines(path).labels) == ["a"]
    write_doctr_dataset(tmp_path, {"b.png": "b"})
    (tmp_path / "labels.json").rename(tmp_path / "other.json")
    assert list(open_lines(str(tmp_path / "other.json")).labels) == ["b"]


def test_open_lines_ambiguous_folder(tmp_path):
    write_labels_dataset(tmp_path, {"a.png": "a"}, "labels_train.txt")
    write_labels_dataset(tmp_path, {"a.png": "a"}, "labels_val.txt")
    with pytest.raises(DataError, match=r"choose one: labels_train.txt, labels_val.txt$"):
        open_lines(tmp_path)
    write_kraken_dataset(tmp_path, {"b": "b"})
    write_lmdb_dataset(tmp_path / "packed", ["c"])
    with pytest.raises(DataError, match=r"labels_val.txt, packed/data.mdb, \*.gt.txt$"):
        open_lines(tmp_path)
    for name, label in [("labels_val.txt", "a"), ("packed/data.mdb", "c"), ("*.gt.txt", "b")]:
        assert list(open_lines(tmp_path / name).labels) == [label]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such file or folder"),
        (lambda folder: folder.mkdir(), "no data set found: no data.mdb, no label file"),
        (lambda folder: write(folder / "labels.txt", ""), "labels.txt: the data set is empty"),
        (lambda folder: write(folder / "labels.json", "{}"), "labels.json: the data set is empty"),
        (lambda folder: write(folder / "labels.json", "{"), "labels.json: not valid JSON in UTF-8"),
        (
            lambda folder: write(folder / "labels.json", b'{"a": "\xff"}'),
            "labels.json: not valid JSON in UTF-8",
        ),
        (lambda folder: write(folder / "labels.json", "[" * 100_000), "labels.json: not valid JSON in UTF-8"),
        (
            lambda folder: write(folder / "labels.json", "[]"),
            "must be a JSON object that maps image names",
        ),
        (
            lambda folder: write(folder, image_bytes()),
            "the suffix of a label file must be .txt, .tsv or .json",
        ),
    ],
)
def test_open_lines_rejects_data(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        open_lines(tmp_path / "data")
    assert str(caught.value).startswith(f"{tmp_path}/data")
    assert message in str(caught.value)


def test_label_file_skipped_lines(tmp_path):
    write(tmp_path / "a.png", image_bytes())
    write(tmp_path / "folder" / "x", "")
    lines = [
        b"\xef\xbb\xbfa.png\tfirst, behind a byte order mark\r",
        b"",
        b"no tab",
        b"missing.png\ttext",
        b"nowhere/a.png\ttext",
        b"folder\ttext",
        b"\ttext",
        b"zero\0.png\ttext",
        b"./a.png\tfirst, behind a byte order mark",
        b"folder/../a.png\tother",
        b"a.png",
    ]
    write(tmp_path / "labels.txt", b"\n".join(lines))
    source = open_lines(tmp_path)
    assert list(source.labels) == ["first, behind a byte order mark"]
    assert skipped_items(source) == [
        ("labels.txt, line 3", "no tab between path and label", ""),
        ("labels.txt, line 11", "no tab between path and label", ""),
        ("missing.png", "missing image", f"no file {tmp_path}/missing.png"),
        ("nowhere/a.png", "missing image", f"no file {tmp_path}/nowhere/a.png"),
        ("folder", "missing image", f"no file {tmp_path}/folder"),
        (".", "missing image", f"no file {tmp_path}/."),
        ("zero\0.png", "missing image", f"no file {tmp_path}/zero\0.png"),
        ("a.png", "duplicate path", "listed before with the same label"),
        ("a.png", "duplicate path", "listed before with a different label"),
    ]
    assert str(source.skipped[2]) == f"missing.png: missing image: no file {tmp_path}/missing.png"


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (b"", ("empty label", "")),
        (b" \xc2\xa0", ("empty label", "")),
        (b"a\tb", ("tab in label", "U+0009 at position 1")),
        (b"ab\rc", ("line break in label", "U+000D at position 2")),
        ("ab\u2028c".encode(), ("line break in label", "U+2028 at position 2")),
        (b"a\0", ("control character in label", "U+0000 at position 1")),
        (b"\x1b[2J", ("control character in label", "U+001B at position 0")),
        (b"M\xfcller", ("label not in UTF-8", "byte 1 is 0xFC")),
    ],
)
def test_label_rejected(tmp_path, label, problem):
    write(tmp_path / "a.png", image_bytes())
    write(tmp_path / "labels.txt", b"a.png\t" + label + b"\n")
    assert skipped_items(open_lines(tmp_path)) == [("a.png", *problem)]

    write(tmp_path / "pairs" / "a.png", image_bytes())
    write(tmp_path / "pairs" / "a.gt.txt", label)
    assert skipped_items(open_lines(tmp_path / "pairs")) == [("a.png", *problem)]


def test_doctr_label_rejected(tmp_path):
    write_doctr_dataset(
        tmp_path, {name: "" for name in ("a.png", "b.png", "c.png", "d.png", "e.png", "f.png")}
    )
    pairs = [
        *[
            ("a.png", "two\nlines"),
            ("b.png", 3),
            ("c.png", {"text": "x"}),
            ("d.png", "\ud800"),
            ("e.png", "e"),
        ],
        *[("e.png", "e"), ("f.png", None), ("missing.png", "x")],
    ]
    content = ", ".join(f"{json.dumps(name)}: {json.dumps(label)}" for name, label in pairs)
    write(tmp_path / "labels.json", f"{{{content}}}")
    source = open_lines(tmp_path)
    assert list(source.names) == ["e.png"]
    assert [problem[:2] for problem in skipped_items(source)] == [
        ("b.png", "label is not text"),
        ("c.png", "label is not text"),
        ("f.png", "label is not text"),
        ("a.png", "line break in label"),
        ("d.png", "control character in label"),
        ("e.png", "duplicate path"),
        ("missing.png", "missing image"),
    ]


def test_kraken_skipped_pairs(tmp_path):
    write_kraken_dataset(tmp_path, {"a": "a", "b": "b", "c": "c\n", "d.x": "d"})
    (tmp_path / "a.png").unlink()
    write(tmp_path / "b.jpg", image_bytes(file_format="JPEG"))
    write(tmp_path / "alone.TIF", image_bytes(file_format="TIFF"))
    write(tmp_path / "folder.gt.txt" / "x", "")
    write(tmp_path / "notes.txt", "no label")
    source = open_lines(tmp_path)
    assert list(source.names) == ["d.x.png"]
    assert skipped_items(source) == [
        ("a.gt.txt", "missing image", "no image of that name in its folder"),
        ("b.gt.txt", "more than one image", "b.jpg, b.png"),
        ("c.png", "line break in label", "U+000A at position 1"),
        ("alone.TIF", "missing label", "no file alone.gt.txt in its folder"),
    ]


@pytest.mark.parametrize("suffix", [".bin.png", ".nrm.png", ".JPG", ".tiff"])
def test_kraken_image_suffix(tmp_path, suffix):
    write(tmp_path / "deep" / "er" / f"0001{suffix}", image_bytes())
    write(tmp_path / "deep" / "er" / "0001.gt.txt", "text\r\n")
    source = open_lines(tmp_path)
    assert (list(source.names), list(source.labels)) == ([f"deep/er/0001{suffix}"], ["text"])


@pytest.mark.parametrize("stem", ["gt_0001", "label", "labels-3"])
def test_kraken_stem_like_label_file(tmp_path, stem):
    write_kraken_dataset(tmp_path, {stem: "text"})
    assert list(open_lines(tmp_path).names) == [f"{stem}.png"]


def test_open_lines_ignores_special_files(tmp_path):
    """Reading a pipe or a device might never end."""
    write_kraken_dataset(tmp_path / "pairs", {"a": "a"})
    os.mkfifo(tmp_path / "pairs/b.gt.txt")
    os.mkfifo(tmp_path / "pairs/c.png")
    source = open_lines(tmp_path / "pairs")
    assert (list(source.names), skipped_items(source)) == (["a.png"], [])
    write(tmp_path / "listed/labels.txt", "/dev/zero\ttext\n")
    [(name, kind, _)] = skipped_items(open_lines(tmp_path / "listed"))
    assert (name, kind) == ("/dev/zero", "missing image")


def test_open_lines_unlistable_folder(tmp_path, monkeypatch):
    write_kraken_dataset(tmp_path, {"a": "a", "deep/b": "b"})
    scandir = os.scandir

    def refused(path):
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    closed = [f"{tmp_path}/deep"]
    source = open_lines(tmp_path)
    assert list(source.names) == ["a.png"]
    assert skipped_items(source) == [("deep", "unreadable folder", "Permission denied")]
    write_lmdb_dataset(tmp_path / "packed/one", ["c"])
    closed = [f"{tmp_path}/packed/two"]
    (tmp_path / "packed/two").mkdir()
    source = open_lines(tmp_path / "packed")
    assert list(source.labels) == ["c"]
    assert skipped_items(source) == [("two", "unreadable folder", "Permission denied")]
    closed = [f"{tmp_path}/packed/one", f"{tmp_path}/packed/two"]
    with pytest.raises(DataError, match=r"no data set found.*; one: unreadable folder: Permission"):
        open_lines(tmp_path / "packed")
    closed = [str(tmp_path)]
    with pytest.raises(DataError, match=f"^{tmp_path}: Permission denied$"):
        open_lines(tmp_path)


def test_open_lines_symlink_cycle(tmp_path):
    write_kraken_dataset(tmp_path / "data", {"a": "a"})
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    assert list(open_lines(tmp_path / "data").names) == ["a.png"]
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    assert list(open_lines(tmp_path / "linked").names) == ["a.png"]


def test_label_file_name_not_utf8(tmp_path):
    name = os.fsdecode(b"\xff.png")
    write(tmp_path / name, image_bytes())
    write(tmp_path / "labels.txt", b"\xff.png\ttext\n")
    source = open_lines(tmp_path)
    assert list(source.names) == [name]
    assert source.image_size(0) == (40, 20)


def test_labels_normalized_to_nfc(tmp_path):
    write_labels_dataset(tmp_path, {"a.png": "u\u0308ber", "b.png": "\u00fcber", "c.png": "u\u0364ber"})
    source = open_lines(tmp_path)
    assert list(source.labels) == ["\u00fcber", "\u00fcber", "u\u0364ber"]
    assert list(source.normalized_to_nfc) == [0]


def test_source_unreadable_images(tmp_path):
    write_labels_dataset(tmp_path, {f"{name}.png": name for name in "abcd"})
    source = open_lines(tmp_path)
    (tmp_path / "a.png").write_bytes(image_bytes()[:-30])
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.png").unlink()
    assert source.image_size(0) == (40, 20), "the header is intact"
    for index, reason in enumerate(
        ["truncated", "not an image in a known format", "No such file or directory"]
    ):
        with pytest.raises(ImageError, match=reason):
            source.image(index, "L")
    for read in (source.image_size, source.image_bytes):
        with pytest.raises(ImageError, match=r"^No such file or directory$"):
            read(2)
    assert source.image(3, "L").size == (43, 20)


@given(
    content=st.lists(
        st.sampled_from([b"a.png", b"\t", b"\n", b"\r", b"x", b" ", b"\xff", b"\0", b"\xe2\x80\xa8", b"/"])
    )
)
def test_label_file_fuzzed(content, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "any labels"
    write(folder / "a.png", image_bytes())
    lines = b"".join([*content, b"\nmissing.png\tlast"])
    source = open_lines(write(folder / "labels.txt", lines))
    assert len(source) + len(source.skipped) <= len(lines.split(b"\n"))
    assert source.skipped[-1].name == "missing.png"
    for label in source.labels:
        assert label.strip()
        assert label.splitlines() == [label]
        assert "Cc" not in map(unicodedata.category, label)
