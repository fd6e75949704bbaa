"""Does something for each line of a data set, in several processes, with a progress bar."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from crnn_ext.ocr.system.arguments import check_int

from .source import DataError, LineSource

Result = TypeVar("Result")

# Lines that a process is given at a time.
_CHUNK = 16

# Fewer lines than these are not worth a process.
_LINES_A_PROCESS = 500


def map_lines(
    function: Callable[[LineSource, int], Result],
    source: LineSource,
    description: str,
    workers: int | None = None,
) -> Iterator[Result]:
    """What a function gives for each line of a source, in their order.

    Only a few results are waiting at any time, however slowly they are taken.

    Args:
        function: takes the source and the index of a line; it pickles, and so does what it returns.
        source: the lines.
        description: stands beside the progress bar, on standard error if that is a terminal.
        workers: processes; 1 for this one alone. By default as many as cores, and one for few lines.

    Raises:
        TypeError, ValueError: `workers` is not in [1, 1024].
        DataError: a process was killed, as happens where memory is short.
    """
    if workers is not None:
        check_int("map_lines", "workers", workers, 1, 1024)
    else:
        workers = max(1, min(len(os.sched_getaffinity(0)), len(source) // _LINES_A_PROCESS))
    results = (
        (function(source, index) for index in range(len(source)))
        if workers == 1
        else _in_processes(partial(_chunk, function), source, workers)
    )
    return iter(tqdm(results, description, len(source), unit=" lines", disable=None, leave=False))


def _in_processes(
    function: Callable[[range], list[Result]], source: LineSource, workers: int
) -> Iterator[Result]:
    waiting: deque[Future[list[Result]]] = deque()
    done = 0
    executor = ProcessPoolExecutor(workers, initializer=_remember, initargs=(source,))
    try:
        for first in range(0, len(source), _CHUNK):
            waiting.append(executor.submit(function, range(first, min(first + _CHUNK, len(source)))))
            if len(waiting) == 2 * workers:
                yield from waiting.popleft().result()
                done += _CHUNK
        while waiting:
            yield from waiting.popleft().result()
            done += _CHUNK
    except BrokenProcessPool as error:
        raise DataError(
            f"{source.path}: a process was killed while it read the lines from {source.names[done]} on; "
            "memory may be short"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


# The source that the lines of a process are of.
_source: LineSource


def _remember(source: LineSource) -> None:
    global _source
    _source = source
    # Ctrl-C reaches all processes of a terminal; the one that started these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunk(function: Callable[[LineSource, int], Result], chunk: range) -> list[Result]:
    return [function(_source, index) for index in chunk]
