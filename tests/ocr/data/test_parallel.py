"""map_lines applies a function to each line, in order, in several processes."""

import os
import signal
from pathlib import Path

import pytest

from crnn_ext.ocr.data import DataError, LineSource
from crnn_ext.ocr.data.parallel import map_lines
from crnn_ext.ocr.data.source import LineRecords


class Numbers(LineSource):
    """Lines without images."""

    def __init__(self, count):
        items = LineRecords()
        for number in range(count):
            items.add(f"line {number}", str(number), None)
        super().__init__(Path("numbers"), items)

    def image_file(self, index):
        raise NotImplementedError


def label_and_process(source, index):
    return source.labels[index], os.getpid()


def kill_at_40(source, index):
    if index == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def raise_error(source, index):
    raise RuntimeError("a mistake of ours")


@pytest.mark.parametrize("count", [1, 15, 16, 17, 200])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_map_lines_keeps_order(count, workers):
    results = list(map_lines(label_and_process, Numbers(count), "", workers))
    assert [label for label, _ in results] == [str(number) for number in range(count)]
    assert (os.getpid() in {process for _, process in results}) == (workers == 1)


def test_map_lines_few_lines_in_process():
    assert {process for _, process in map_lines(label_and_process, Numbers(20), "")} == {os.getpid()}


def test_map_lines_is_lazy(tmp_path):
    """Memory stays bounded when results are produced faster than they are consumed."""
    results = map_lines(Touch(tmp_path), Numbers(5000), "", 2)
    assert next(results) == 0
    assert len(list(tmp_path.iterdir())) < 200
    results.close()


class Touch:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, source, index):
        (self.folder / str(index)).touch()
        return index


def test_map_lines_worker_killed():
    message = r"numbers: a worker process was killed .* from line (0|16|32) on; memory"
    with pytest.raises(DataError, match=message):
        list(map_lines(kill_at_40, Numbers(200), "", 2))


def test_map_lines_propagates_errors():
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(map_lines(raise_error, Numbers(200), "", 2))


@pytest.mark.parametrize("workers", [0, 1025])
def test_map_lines_rejects_workers(workers):
    with pytest.raises(ValueError, match=rf"workers must be in \[1, 1024\], got {workers}"):
        map_lines(label_and_process, Numbers(1), "", workers)
