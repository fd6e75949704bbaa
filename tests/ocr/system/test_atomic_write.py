"""Files are written completely or not at all."""

import os
import threading

import pytest

pytest.importorskip("PIL")

from crnn_ext.ocr.system.atomic_write import atomic_write, atomic_write_bytes


def test_replacing_error_keeps_old_file(tmp_path):
    path = tmp_path / "file"
    atomic_write_bytes(path, b"before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:  # noqa: PT012
        file.write(b"half")
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_replace_file_keeps_foreign_tmp_file(tmp_path):
    (tmp_path / "file.tmp").write_bytes(b"mine")
    atomic_write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file.tmp").read_bytes() == b"mine"


def test_replacing_concurrent_writers(tmp_path):
    """The last writer to finish wins, with its complete content."""
    path = tmp_path / "file"
    with atomic_write(path) as first:
        first.write(b"first")
        other = threading.Thread(target=atomic_write_bytes, args=(path, b"the second"))
        other.start()
        other.join()
        assert path.read_bytes() == b"the second"
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_replacing_errors_name_target(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing/file", tmp_path / "file/file"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 (the system chooses the subclass)
            atomic_write_bytes(path, b"")
        assert caught.value.filename == str(path)
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "file"):  # noqa: PT011
        open(tmp_path / "another")  # noqa: SIM115
    assert caught.value.filename == str(tmp_path / "another")


def test_replace_file_mode(tmp_path):
    atomic_write_bytes(tmp_path / "one", b"")
    (tmp_path / "two").touch()
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "two").stat().st_mode
