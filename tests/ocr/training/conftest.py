"""Fixtures for tests of training."""

import pytest
import torch


class FakeClock:
    """Replaces the module `time`: `now` changes only when a test sets it."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    from crnn_ext.ocr.training import console, signals

    fake = FakeClock()
    for module in (console, signals):
        monkeypatch.setattr(module, "time", fake)
    return fake


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """More threads do not speed up a network this small, and slow it down on a busy machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    from helpers.striped_lines import write_striped_dataset

    return write_striped_dataset(tmp_path_factory.mktemp("lines"))
