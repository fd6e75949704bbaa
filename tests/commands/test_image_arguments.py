"""Which images an argument of a command stands for."""

import io
import os

import pytest

pytest.importorskip("PIL")

from crnn_ext.commands import image_arguments


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch):
    """Files in the current folder; their content is never looked at."""
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


def test_a_name_is_itself_whether_there_is_such_a_file_or_not():
    assert found("b.png", "missing.png", "text.txt", "b.png") == ["b.png", "missing.png", "text.txt", "b.png"]


def test_a_folder_is_all_images_below_it():
    assert found(".") == ["[1].png", "a.JPG", "b.png", "deep/c.png", "deep/er/d.tiff", "other/e.png"]
    assert found("deep/") == ["deep/c.png", "deep/er/d.tiff"]
    assert found("other", "deep/er") == ["other/e.png", "deep/er/d.tiff"]


def test_links_in_circles_end():
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
        ("deep/*", ["deep/c.png"]),  # no folders
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
def test_a_pattern_is_what_matches(pattern, files, tmp_path):
    assert found(pattern) == files
    if not pattern.startswith("."):
        assert found(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{file}" for file in files]


def test_a_file_of_the_name_goes_before_a_pattern_and_a_list(tmp_path):
    assert found("[1].png") == ["[1].png"]
    (tmp_path / "@b.png").touch()
    assert found("@b.png") == ["@b.png"]


LIST = b"\xef\xbb\xbfb.png\r\n\n deep/*.png\nm\xff.png"
LISTED = ["b.png", " deep/*.png", os.fsdecode(b"m\xff.png")]


def test_a_list_names_files(tmp_path, monkeypatch):
    (tmp_path / "list").write_bytes(LIST)
    assert found("a.JPG", "@list", "text.txt") == ["a.JPG", *LISTED, "text.txt"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LIST)))
    assert found("-") == LISTED


def test_what_stands_for_nothing_is_named(tmp_path, monkeypatch):
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


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_read(monkeypatch):
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


def test_what_is_no_regular_file_is_none():
    os.mkfifo("deep/pipe.png")
    assert found("deep") == ["deep/c.png", "deep/er/d.tiff"]


def test_links_that_lead_nowhere_are_named_when_they_are_read():
    os.symlink("gone", "deep/gone.png")
    os.symlink("circle.png", "deep/circle.png")
    assert found("deep") == ["deep/c.png", "deep/circle.png", "deep/gone.png", "deep/er/d.tiff"]
