"""crnn-ext pack writes usable lines to an LMDB database and names each skipped line with the reason."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial

import lmdb
import numpy as np
import pytest
from helpers.command_line import MAIN, run_without
from helpers.dataset_files import (
    FRAKTUR,
    image_bytes,
    requires_fraktur,
    write,
    write_doctr_dataset,
    write_kraken_dataset,
    write_labels_dataset,
    write_lmdb_dataset,
)
from PIL import Image

from crnn_ext.cli import main
from crnn_ext.ocr.data import DataError, open_lines
from crnn_ext.ocr.data.pack import pack_lines


@pytest.fixture
def output(tmp_path):
    """A path in its own folder, where no other file may remain."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "packed"


@pytest.fixture
def folder(tmp_path):
    write_labels_dataset(tmp_path / "data", {f"{number}.png": f"label {number}" for number in range(5)})
    return tmp_path / "data"


def test_pack_command_every_layout(tmp_path, output, capsys):
    write_labels_dataset(tmp_path / "a", {"images/1.png": "a1", "images/2.png": "a2"})
    write_kraken_dataset(tmp_path / "b", {"x": "b1"})
    write_doctr_dataset(tmp_path / "c", {"1.png": "u\u0308"})
    write_lmdb_dataset(tmp_path / "d", ["d1"])
    assert main(["pack", *(str(tmp_path / name) for name in "abcd"), "-o", str(output)]) == 0
    assert capsys.readouterr() == (f"{output}: 5 lines, 0 items skipped\n", "")
    with lmdb.open(str(output), readonly=True, lock=False) as environment, environment.begin() as transaction:
        stored = dict(transaction.cursor())
    assert stored.pop(b"num-samples") == b"5"
    pictures = [image_bytes(40, seed=0), image_bytes(41, seed=1), *[image_bytes(40, seed=0)] * 3]
    names = ["images/1.png", "images/2.png", "x.png", "1.png", "image-000000001"]
    for number, (label, image, name) in enumerate(
        zip(["a1", "a2", "b1", "\u00fc", "d1"], pictures, names, strict=True), 1
    ):
        assert stored.pop(f"label-{number:09d}".encode()).decode() == label
        assert stored.pop(f"image-{number:09d}".encode()) == image
        assert stored.pop(f"name-{number:09d}".encode()).decode() == name
    assert not stored
    assert os.listdir(output) == ["data.mdb"]
    assert os.listdir(output.parent) == ["packed"]
    assert list(open_lines(output).names) == names


def test_pack_lines_duplicate_names(tmp_path, output):
    for name in "ab":
        write_labels_dataset(tmp_path / name, {"1.png": name, f"{name}.png": name})
    pack_lines([open_lines(tmp_path / name) for name in "ab"], output)
    assert open_lines(output).names == ["1:1.png", "1:a.png", "2:1.png", "2:b.png"]


def test_pack_command_skipped_lines(folder, output, capsys):
    write(folder / "1.png", (folder / "1.png").read_bytes()[:-30])
    write(folder / "3.png", "no image")
    with open(folder / "labels.txt", "a") as file:
        file.write("0.png\tagain\nmissing.png\ttext\n4.png\n")
    assert main(["pack", str(folder), "-o", str(output)]) == 1
    printed, errors = capsys.readouterr()
    assert printed == f"{output}: 3 lines, 5 items skipped\n"
    expected = [
        "labels.txt, line 8: no tab between path and label",
        "0.png: duplicate path: listed before with a different label",
        f"missing.png: missing image: no file {folder}/missing.png",
        "1.png: unreadable image: cannot be decoded: ",
        "3.png: unreadable image: not an image in a known format",
    ]
    for line, start in zip(errors.splitlines(), expected, strict=True):
        assert line.startswith(f"crnn-ext: {folder}/labels.txt: {start}")
    source = open_lines(output)
    assert list(source.labels) == ["label 0", "label 2", "label 4"]
    assert [source.image_size(index) for index in range(3)] == [(40, 20), (42, 20), (44, 20)]


def test_pack_command_nothing_to_pack(folder, output, capsys):
    write(folder / "labels.txt", "0.png\t\n")
    assert main(["pack", str(folder), "-o", str(output)]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.splitlines() == [
        f"crnn-ext: {folder}/labels.txt: 0.png: empty label",
        f"crnn-ext: {output}: not written: no usable line",
    ]
    assert os.listdir(output.parent) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_pack_command_does_not_overwrite(folder, output, capsys, kind):
    make = {"file": output.touch, "folder": output.mkdir, "link": lambda: output.symlink_to("nowhere")}
    make[kind]()
    assert main(["pack", str(folder), "-o", str(output)]) == 2
    assert capsys.readouterr().err == f"crnn-ext: {output}: already exists; choose a new folder\n"
    assert os.listdir(output.parent) == ["packed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "packed"], "nowhere: no such file or folder"),
        (["DATA", "-o", "nowhere/packed"], "nowhere/packed: No such file or directory"),
        (["DATA", "-o", "DATA/labels.txt/packed"], "labels.txt/packed: Not a directory"),
        (["DATA", "-o", "packed", "--workers", "0"], "workers must be in [1, 1024], got 0"),
    ],
)
def test_pack_command_errors(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert main(["pack", *(part.replace("DATA", str(folder)) for part in arguments)]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_pack_lines_grows_map(tmp_path, output):
    """The map starts at 1 MiB; single lines and groups of lines exceed the free space."""
    sizes = [20, 900, 300, 20, 1200, *[200] * 150]
    lines = {f"{number}.png": f"label {number}" for number in range(len(sizes))}
    write_labels_dataset(tmp_path / "data", lines)
    for number, size in enumerate(sizes):
        write(tmp_path / "data" / f"{number}.png", image_bytes(size, size, seed=number))
    assert pack_lines([open_lines(tmp_path / "data")], output).lines == len(sizes)
    source = open_lines(output)
    assert list(source.labels) == list(lines.values())
    assert [source.image_size(index) for index in range(len(sizes))] == [(size, size) for size in sizes]
    total = sum(len(source.image_bytes(index)) for index in range(len(sizes)))
    assert total < (output / "data.mdb").stat().st_size < 1.2 * total


def test_pack_lines_workers(tmp_path, output):
    write_labels_dataset(tmp_path / "data", {f"{number}.png": f"label {number}" for number in range(100)})
    write(tmp_path / "data" / "50.png", "no image")
    packed = pack_lines([open_lines(tmp_path / "data")], output, workers=3)
    assert packed.lines == 99
    assert [problem.name for _, problem in packed.skipped] == ["50.png"]
    source = open_lines(output)
    for index, name in enumerate(source.names):
        assert source.image_bytes(index) == (tmp_path / "data" / name).read_bytes()


def test_pack_lines_reencodes(tmp_path, output):
    """Gray stays gray; rotated, transparent and CMYK images are converted to upright gray or RGB."""
    write_labels_dataset(tmp_path / "data", {f"{number}.tif": "text" for number in range(3)})
    gray = np.random.default_rng(0).integers(0, 256, (20, 40), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gray).save(tmp_path / "data" / "0.tif", exif=exif)
    Image.new("RGBA", (40, 20), (255, 0, 0, 0)).save(tmp_path / "data" / "1.tif")
    Image.new("CMYK", (40, 20), (0, 255, 0, 0)).save(tmp_path / "data" / "2.tif")
    pack_lines([open_lines(tmp_path / "data")], output, "png")
    source = open_lines(output)
    images = [Image.open(io.BytesIO(source.image_bytes(index))) for index in range(3)]
    assert [(image.format, image.mode) for image in images] == [("PNG", "L"), ("PNG", "RGB"), ("PNG", "RGB")]
    assert np.array_equal(images[0], np.rot90(gray, -1))
    assert images[1].getpixel((0, 0)) == (255, 255, 255)
    assert images[2].getpixel((0, 0)) == (255, 0, 255)

    pack_lines([open_lines(tmp_path / "data")], output.with_name("jpeg"), "jpeg")
    source = open_lines(output.with_name("jpeg"))
    assert Image.open(io.BytesIO(source.image_bytes(0))).format == "JPEG"
    assert source.image_size(0) == (20, 40)


def test_pack_lines_too_wide_for_jpeg(tmp_path, output):
    write_labels_dataset(tmp_path / "data", {"a.png": "a", "b.png": "b"})
    Image.new("L", (70_000, 10)).save(tmp_path / "data" / "a.png")
    packed = pack_lines([open_lines(tmp_path / "data")], output, "jpeg")
    assert packed.lines == 1
    [(_, problem)] = packed.skipped
    assert problem == ("a.png", "image not encoded", "jpeg does not support 70000 x 10 pixels")
    assert pack_lines([open_lines(tmp_path / "data")], output.with_name("as it is")).lines == 2


def test_pack_lines_full_disk(tmp_path, output):
    """A limit on file sizes simulates the full disk."""
    write_labels_dataset(tmp_path, {f"{number}.png": "text" for number in range(20)})
    for number in range(20):
        write(tmp_path / f"{number}.png", image_bytes(300, 300, seed=number))
    source = open_lines(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(DataError, match=rf"^{output}: cannot be written; the disk may be full: "):
            pack_lines([source], output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(output.parent) == []


def test_pack_command_interrupted(folder, output):
    """Ctrl-C signals all processes of a group."""
    for number in range(5, 400):
        write(folder / f"{number}.png", image_bytes(1000, 100, seed=number))
    write(folder / "labels.txt", "".join(f"{number}.png\ttext\n" for number in range(400)))
    arguments = [*("pack", folder, "-o", output), *("--workers", "2", "--encode", "png")]
    process = subprocess.Popen(
        [sys.executable, "-m", "crnn_ext", *arguments],
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell without job control makes background processes and their children ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not any(path.stat().st_size > 1 << 20 for path in output.parent.glob(".crnn_ext-*.tmp/data.mdb")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
    assert os.listdir(output.parent) == []


def test_pack_command_without_lmdb(folder, output):
    result = run_without(["lmdb"], MAIN, "pack", folder, "-o", output)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "crnn-ext: LMDB databases need lmdb, which is not installed: "
        "install crnn_ext with its extra [train]\n"
    )


@requires_fraktur
def test_pack_lines_fraktur(output):
    original = open_lines(FRAKTUR / "labels_val.txt")
    packed = pack_lines([original], output)
    assert packed == (260, [])
    copy = open_lines(output)
    assert list(copy.names) == list(original.names)
    assert list(copy.labels) == list(original.labels)
    for index in range(0, 260, 20):
        assert copy.image_bytes(index) == original.image_bytes(index)
