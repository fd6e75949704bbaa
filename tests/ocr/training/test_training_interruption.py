"""Signals ask a run to end; a second one, later, has its usual effect."""

import os
import signal

import pytest
from helpers.training_runs import FakeClock

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr.training import signals as module
from crnn_ext.ocr.training.signals import stop_on_signals


@pytest.fixture
def clock(monkeypatch):
    moved = FakeClock()
    monkeypatch.setattr(module, "time", moved)
    return moved


@pytest.fixture(autouse=True)
def _python_handlers():
    """Those of Python, also where the shell ignores SIGINT in the background; put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(number, capfd):
    with stop_on_signals() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), number)
        assert interrupted()
        assert interrupted.signal == number
    assert "stopping after this step" in capfd.readouterr().err


def test_what_follows_at_once_is_the_same_request(clock):
    with stop_on_signals() as interrupted:
        interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        clock.now += 0.9
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.signal == signal.SIGINT


def test_a_second_signal_ends_at_once(clock):
    with stop_on_signals() as interrupted:
        interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        clock.now += 1.1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_before_anybody_waits_for_one_has_its_usual_effect():
    with stop_on_signals() as interrupted:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.signal is None


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_signals() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupted()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_the_handlers_before_come_back():
    with stop_on_signals():
        assert signal.getsignal(signal.SIGINT) != signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
