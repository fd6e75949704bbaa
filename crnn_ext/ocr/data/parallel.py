"""Parallel map over the lines of a source, with a progress bar."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from crnn_ext._arguments import check_int

from .source import DataError, LineSource

Result = TypeVar("Result")

# Number of lines in one task of a worker process.
_CHUNK = 16

# A worker process pays off only with at least this many lines.
_MIN_LINES_PER_PROCESS = 500


def map_lines(
    function: Callable[[LineSource, int], Result],
    source: LineSource,
    description: str,
    workers: int | None = None,
) -> Iterator[Result]:
    """Calls a function for each line of a source and yields the results in order.

    Only a bounded number of results is buffered, even if the caller consumes them slowly.

    Args:
        function: takes the source and the index of a line. The function and its results must be picklable.
        source: the lines.
        description: the label of the progress bar, which is shown on standard error if that is a terminal.
        workers: number of processes; 1 uses this process alone. The default is the number of cores, or fewer
            processes for few lines.

    Raises:
        TypeError, ValueError: `workers` is not an int in [1, 1024].
        DataError: a worker process was killed, for example because memory ran out.
    """
    if workers is not None:
        check_int("map_lines: workers", workers, 1, 1024)
    else:
        workers = max(1, min(len(os.sched_getaffinity(0)), len(source) // _MIN_LINES_PER_PROCESS))
    results = (
        (function(source, index) for index in range(len(source)))
        if workers == 1
        else _in_processes(partial(_chunk, function), source, workers)
    )
    return iter(tqdm(results, description, len(source), unit=" lines", disable=None, leave=False))


def _in_processes(
    function: Callable[[range], list[Result]], source: LineSource, workers: int
) -> Iterator[Result]:
    pending: deque[Future[list[Result]]] = deque()
    done = 0
    executor = ProcessPoolExecutor(workers, initializer=_init_worker, initargs=(source,))
    try:
        for first in range(0, len(source), _CHUNK):
            pending.append(executor.submit(function, range(first, min(first + _CHUNK, len(source)))))
            if len(pending) == 2 * workers:
                yield from pending.popleft().result()
                done += _CHUNK
        while pending:
            yield from pending.popleft().result()
            done += _CHUNK
    except BrokenProcessPool as error:
        raise DataError(
            f"{source.path}: a worker process was killed while reading lines from {source.names[done]} on; "
            "memory may have run out"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


# The source of a worker process.
_source: LineSource


def _init_worker(source: LineSource) -> None:
    global _source
    _source = source
    # Ctrl-C reaches all processes of a terminal; the parent process stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunk(function: Callable[[LineSource, int], Result], chunk: range) -> list[Result]:
    return [function(_source, index) for index in chunk]
