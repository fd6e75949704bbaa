"""The first signal asks a run to stop; a later one has its usual effect."""

import os
import signal

import pytest

pytest.importorskip("PIL")
pytest.importorskip("cv2")

from crnn_ext.ocr.training.signals import stop_on_signals


@pytest.fixture(autouse=True)
def _python_handlers():
    """Python's own handlers, since a shell may ignore SIGINT in the background."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_on_signals_first_signal(number, capfd):
    with stop_on_signals() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), number)
        assert interrupted()
        assert interrupted.signal == number
    assert "stopping after this step" in capfd.readouterr().err


def test_stop_on_signals_debounces_signals(clock):
    with stop_on_signals() as interrupted:
        interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        clock.now += 0.9
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.signal == signal.SIGINT


def test_stop_on_signals_second_signal(clock):
    with stop_on_signals() as interrupted:
        interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        clock.now += 1.1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_stop_on_signals_signal_before_first_poll():
    with stop_on_signals() as interrupted:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.signal is None


def test_stop_on_signals_ignored_signal():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_signals() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupted()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_stop_on_signals_restores_handlers():
    with stop_on_signals():
        assert signal.getsignal(signal.SIGINT) != signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
