"""Expansion of command arguments to image paths."""

import io
import os

import pytest

pytest.importorskip("PIL")

from crnn_ext.commands import image_arguments


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch):
    """Empty files in the current folder; their content is not read."""
    for name in ["b.png", "a.JPG", "text.txt", "deep/c.png", "deep/er/d.tiff", "other/e.png", "[1].png"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)


def found(*arguments):
    images = image_arguments.find_images(arguments)
    assert images.problems == []
    return images.paths


def problems(*arguments):
    return image_arguments.find_images(arguments).problems


def test_find_file_name():
    assert found("b.png", "missing.png", "text.txt", "b.png") == ["b.png", "missing.png", "text.txt", "b.png"]


def test_find_folder():
    assert found(".") == ["[1].png", "a.JPG", "b.png", "deep/c.png", "deep/er/d.tiff", "other/e.png"]
    assert found("deep/") == ["deep/c.png", "deep/er/d.tiff"]
    assert found("other", "deep/er") == ["other/e.png", "deep/er/d.tiff"]


def test_find_symlink_cycle():
    os.symlink("..", "deep/back")
    os.symlink("..", "other/back")
    assert found("deep") == [
        *("deep/c.png", "deep/back/[1].png", "deep/back/a.JPG", "deep/back/b.png", "deep/back/other/e.png"),
        "deep/er/d.tiff",
    ]
    assert "deep/back/b.png" in found("deep/**/*.png")
    assert len(found("**/*.png")) == 4


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("*.png", ["[1].png", "b.png"]),
        ("*/?.png", ["deep/c.png", "other/e.png"]),
        ("deep/*", ["deep/c.png"]),  # folders do not match
        ("**/*.png", ["[1].png", "b.png", "deep/c.png", "other/e.png"]),
        ("./**/c*", ["deep/c.png"]),
        ("deep/**", ["deep/c.png", "deep/er/d.tiff"]),
        ("d*/**/*.t*", ["deep/er/d.tiff"]),
        ("**/er/**/*", ["deep/er/d.tiff"]),
        ("**/**/d.*", ["deep/er/d.tiff"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("[[]1].png", ["[1].png"]),
    ],
)
def test_find_pattern(pattern, files, tmp_path):
    assert found(pattern) == files
    if not pattern.startswith("."):
        assert found(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{file}" for file in files]


def test_find_prefers_existing_file(tmp_path):
    assert found("[1].png") == ["[1].png"]
    (tmp_path / "@b.png").touch()
    assert found("@b.png") == ["@b.png"]


LIST = b"\xef\xbb\xbfb.png\r\n\n deep/*.png\nm\xff.png"
LISTED = ["b.png", " deep/*.png", os.fsdecode(b"m\xff.png")]


def test_find_list(tmp_path, monkeypatch):
    (tmp_path / "list").write_bytes(LIST)
    assert found("a.JPG", "@list", "text.txt") == ["a.JPG", *LISTED, "text.txt"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LIST)))
    assert found("-") == LISTED


def test_find_reports_empty_arguments(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list").write_bytes(b"\n\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert problems("empty", "*.gif", "gone/**/*.png", "@list", "@gone", "-", "b.png") == [
        "empty: no images in this folder",
        "*.gif: no such file and no match",
        "gone/**/*.png: no such file and no match",
        "@list: no file names in this list",
        "gone: No such file or directory",
        "-: no file names on standard input",
    ]


def test_find_unlistable_folder(monkeypatch):
    scandir = os.scandir

    def refused(path):
        if path == "deep/er":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    for argument in ("deep", "deep/**/*.*"):
        images = image_arguments.find_images([argument])
        assert images.paths == ["deep/c.png"]
        assert images.problems == ["deep/er: Permission denied"]


def test_find_ignores_special_files():
    os.mkfifo("deep/pipe.png")
    assert found("deep") == ["deep/c.png", "deep/er/d.tiff"]


def test_find_keeps_dangling_links():
    os.symlink("gone", "deep/gone.png")
    os.symlink("circle.png", "deep/circle.png")
    assert found("deep") == ["deep/c.png", "deep/circle.png", "deep/gone.png", "deep/er/d.tiff"]
