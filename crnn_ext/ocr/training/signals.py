"""SIGINT and SIGTERM as requests to save the state of a run and stop."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal has arrived, and which one.

    Attributes:
        signal: number of the signal; None before it arrives.
        polled: True once the run has called the object. Before that there is no state to save.
    """

    signal: int | None = None
    polled: bool = False

    def __call__(self) -> bool:
        """Whether a signal has arrived."""
        self.polled = True
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a stop request.

    A second signal has its usual effect, as has a signal before the first poll. A signal within a second of
    the first one counts as the same request: Ctrl-C reaches all processes, and torchrun forwards it too.
    Signals that the process ignored from the start, such as in the background of a shell, stay ignored.
    """
    request = StopRequest()
    first_time = 0.0
    original = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_time
        if request.signal is None and request.polled:
            request.signal, first_time = number, time.monotonic()
            # Not through sys.stderr, which the signal may have interrupted.
            os.write(2, b"\nstopping after this step and saving the state; repeat to stop at once\n")
        elif not request.polled or time.monotonic() - first_time > 1:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in original.items():
            signal.signal(number, handler)

    for number, handler in original.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield request
    finally:
        restore()
