"""map_lines: something for each line, in order, in several processes."""

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


def killed(source, index):
    if index == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def raising(source, index):
    raise RuntimeError("a mistake of ours")


@pytest.mark.parametrize("count", [1, 15, 16, 17, 200])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_in_order(count, workers):
    results = list(map_lines(label_and_process, Numbers(count), "", workers))
    assert [label for label, _ in results] == [str(number) for number in range(count)]
    assert (os.getpid() in {process for _, process in results}) == (workers == 1)


def test_few_lines_are_not_worth_a_process():
    assert {process for _, process in map_lines(label_and_process, Numbers(20), "")} == {os.getpid()}


def test_results_that_nobody_takes_are_not_made(tmp_path):
    """So memory stays bounded where images are made faster than they are written."""
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


def test_a_process_that_is_killed():
    message = r"numbers: a worker process was killed .* from line (0|16|32) on; memory"
    with pytest.raises(DataError, match=message):
        list(map_lines(killed, Numbers(200), "", 2))


def test_errors_of_the_function():
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(map_lines(raising, Numbers(200), "", 2))


@pytest.mark.parametrize("workers", [0, 1025])
def test_workers_that_break_their_rule(workers):
    with pytest.raises(ValueError, match=rf"workers must be in \[1, 1024\], got {workers}"):
        map_lines(label_and_process, Numbers(1), "", workers)
