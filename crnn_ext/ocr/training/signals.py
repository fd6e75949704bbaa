"""Signals that ask a run to save its state and end."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal has come, and its number.

    Attributes:
        signal: its number, None before.
        polled: whether anybody has asked. Until then nobody waits for a signal, and nothing is to be saved.
    """

    signal: int | None = None
    polled: bool = False

    def __call__(self) -> bool:
        """Whether one has come."""
        self.polled = True
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Waits for SIGINT and SIGTERM.

    The second of them has its usual effect, and so has any before somebody has asked for the first time. A
    signal that this process was started to ignore, as in the background of a shell, stays ignored. What
    follows within a second is the same request: torchrun hands on a Ctrl-C that has reached all already.
    """
    came = StopRequest()
    first = 0.0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if came.signal is None and came.polled:
            came.signal, first = number, time.monotonic()
            # Not through sys.stderr, which this may have interrupted.
            os.write(2, b"\nstopping after this step, when its state is saved; again to end at once\n")
        elif not came.polled or time.monotonic() - first > 1:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield came
    finally:
        restore()
