"""open_lines on LMDB databases: foreign, damaged, replaced, and read in worker processes."""

import gc
import os
import pickle
import shutil

import lmdb
import pytest
from helpers.command_line import run_without
from helpers.dataset_files import image_bytes, write, write_lmdb, write_lmdb_dataset
from torch.utils.data import DataLoader

from crnn_ext.ocr import ImageError, Preprocessing
from crnn_ext.ocr.data import DataError, LineDataset, collate, open_lines

PAIR = {"image-000000001": image_bytes(), "label-000000001": "text"}


def test_lmdb_tree(tmp_path):
    write_lmdb_dataset(tmp_path / "real" / "b", ["b1", "b2"])
    write_lmdb_dataset(tmp_path / "real" / "a", ["a1"])
    write_lmdb_dataset(tmp_path / "synthetic", ["s1"])
    source = open_lines(tmp_path)
    assert list(source.labels) == ["a1", "b1", "b2", "s1"]
    assert list(source.names) == [
        "real/a/image-000000001",
        "real/b/image-000000001",
        "real/b/image-000000002",
        "synthetic/image-000000001",
    ]
    assert [source.image_size(index)[0] for index in range(4)] == [40, 40, 41, 40]
    assert list(open_lines(tmp_path / "synthetic" / "data.mdb").labels) == ["s1"]


def test_lmdb_skipped_items(tmp_path):
    values = {
        f"{part}-{number:09d}": PAIR[f"{part}-000000001"]
        for part in ("image", "label")
        for number in range(1, 6)
    }
    values |= {"label-000000003": b"M\xfcller", "label-000000004": "a\tb", "num-samples": "5"}
    del values["label-000000001"], values["image-000000002"]
    write_lmdb(tmp_path / "data", values)
    source = open_lines(tmp_path / "data")
    assert list(source.names) == ["image-000000005"]
    assert [tuple(problem) for problem in source.skipped] == [
        ("image-000000001", "missing label", "no key label-000000001"),
        ("image-000000002", "missing image", "no key image-000000002"),
        ("image-000000003", "label not in UTF-8", "byte 1 is 0xFC"),
        ("image-000000004", "tab in label", "U+0009 at position 1"),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"key": "value"}, "not a database of lines: no key num-samples"),
        (PAIR | {"num-samples": "many"}, "num-samples must be a number of lines, got b'many'"),
        (PAIR | {"num-samples": "0"}, "got b'0' in a database of 3 keys"),
        (PAIR | {"num-samples": "1000000000000"}, "got b'1000000000000' in a database of 3 keys"),
        (PAIR | {"num-samples": b"\xff"}, r"got b'\xff'"),
        ({}, "no key num-samples"),
    ],
)
def test_lmdb_rejects_keys(tmp_path, values, message):
    write_lmdb(tmp_path / "data", values)
    with pytest.raises(DataError) as caught:
        open_lines(tmp_path / "data")
    assert str(caught.value).startswith(f"{tmp_path}/data: ")
    assert message in str(caught.value)


def test_lmdb_rejects_other_files(tmp_path):
    for number, content in enumerate([b"", b"text", bytes(1 << 14)]):
        folder = tmp_path / str(number)
        write(folder / "data.mdb", content)
        with pytest.raises(DataError, match=f"^{folder}: "):
            open_lines(folder)


def test_lmdb_truncated(tmp_path):
    """LMDB itself opens the file, and a read past its end kills the process."""
    write_lmdb_dataset(tmp_path / "data", ["text"] * 50)
    file = tmp_path / "data" / "data.mdb"
    size = file.stat().st_size
    os.truncate(file, size // 2)
    with pytest.raises(DataError, match=f"data.mdb is truncated: it has {size // 2} of {size} bytes"):
        open_lines(tmp_path / "data")


def test_lmdb_opened_repeatedly(tmp_path):
    """LMDB does not open a file twice in one process."""
    write_lmdb_dataset(tmp_path / "data", ["a", "b"])
    sources = [open_lines(tmp_path / "data") for _ in range(2)]
    sources.append(pickle.loads(pickle.dumps(sources[0])))
    assert [source.image_size(1) for source in sources] == [(41, 20)] * 3


def test_lmdb_replaced_while_open(tmp_path):
    write_lmdb_dataset(tmp_path / "data", ["a"])
    old = open_lines(tmp_path / "data")
    assert old.image_size(0) == (40, 20)
    shutil.rmtree(tmp_path / "data")
    write_lmdb_dataset(tmp_path / "data", ["b", "c"])
    new = open_lines(tmp_path / "data")
    assert list(new.labels) == ["b", "c"]
    assert (old.image_size(0), new.image_size(1)) == ((40, 20), (41, 20))


def test_lmdb_image_removed(tmp_path):
    write_lmdb_dataset(tmp_path / "data", ["a"])
    source = open_lines(tmp_path / "data")
    gc.collect()
    with (
        lmdb.open(str(tmp_path / "data"), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.delete(b"image-000000001")
    with pytest.raises(ImageError, match=r"^no longer in the database$"):
        source.image(0, "L")
    pickled = pickle.dumps(source)
    del source
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(ImageError, match=r"cannot be read from the database: .*data: No such file"):
        pickle.loads(pickled).image(0, "L")


@pytest.mark.parametrize(
    ("start", "opened_before"),
    [("fork", False), ("fork", True), pytest.param("spawn", True, marks=pytest.mark.exhaustive)],
)
def test_lmdb_in_workers(tmp_path, start, opened_before):
    write_lmdb_dataset(tmp_path / "data", [f"line {number}" for number in range(20)])
    dataset = LineDataset(open_lines(tmp_path / "data"), Preprocessing())
    if opened_before:
        dataset[0]
    loader = DataLoader(
        dataset, batch_size=3, num_workers=2, collate_fn=collate, multiprocessing_context=start
    )
    batches = list(loader)
    assert [label for batch in batches for label in batch.labels] == [
        f"line {number}" for number in range(20)
    ]
    widths = [width for batch in batches for width in batch.widths.tolist()]
    assert widths == [dataset[index].image.shape[-1] for index in range(20)]


def test_open_lines_without_lmdb(tmp_path):
    """Importing works without lmdb; opening a database names the missing package."""
    write_lmdb_dataset(tmp_path / "data", ["a"])
    code = "from crnn_ext.ocr.data import open_lines; open_lines(sys.argv[1])"
    result = run_without(["lmdb"], code, tmp_path / "data")
    assert result.stderr.splitlines()[-1] == (
        "ImportError: LMDB databases need lmdb, which is not installed: "
        "install crnn_ext with its extra [train]"
    )
