"""A parallel map over processes, in order, with progress."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from foldvote.errors import UserError
from foldvote.runtime.job_log import track
from foldvote.runtime.signals import end_with_parent

T = TypeVar("T")
R = TypeVar("R")
_CHUNKS_PER_PROCESS = 32


def map_processes(
    function: Callable[[T], R], items: Sequence[T], workers: int, what: str, worth: int = 200
) -> Iterator[R]:
    """Apply `function` to each item, and yield the results in the order of the items.

    Args:
        function: a module-level function, or a `functools.partial` of one; it must not depend on the order of calls.
        items: the arguments.
        workers: largest number of processes; few items are processed in this process.
        what: a short description for the progress display.
        worth: number of items from which a further process saves more time than its start takes.

    Raises:
        UserError: if a worker process dies, or the one that `function` raises.
    """
    processes = min(workers, len(items) // worth + 1)
    if processes <= 1:
        yield from track(map(function, items), what, len(items))
        return
    # Workers are forked from a fresh server process, because this process has threads.
    context = multiprocessing.get_context("forkserver")
    chunk = min(max(len(items) // (processes * _CHUNKS_PER_PROCESS), 1), 32)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start) as pool:
        try:
            yield from track(pool.map(function, items, chunksize=chunk), what, len(items))
        except BrokenProcessPool as error:
            raise _killed(what) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def stream_processes(
    function: Callable[[T], R], items: Iterable[T], total: int, workers: int, ahead: int, what: str, worth: int = 200
) -> Iterator[R]:
    """Apply `function` to each item, and yield the results in the order of the items, however many there are.

    Args:
        function: a module-level function, or a `functools.partial` of one; it must not depend on the order of calls.
        items: the arguments, taken as they are needed.
        total: number of items.
        workers: largest number of processes; few items are processed in this process.
        ahead: about how many results may wait for the caller, who so bounds the memory that they take.
        what: a short description for errors.
        worth: number of items from which a further process saves more time than its start takes.

    Raises:
        UserError: if a worker process dies, or the one that `function` raises.
    """
    processes = min(workers, total // worth + 1)
    if processes <= 1:
        yield from map(function, items)
        return
    size = max(min(16, ahead // (2 * processes)), 1)
    coming = iter(items)
    chunks = iter(lambda: list(islice(coming, size)), [])
    waiting: deque[Future[list[R]]] = deque()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("forkserver"), initializer=_start) as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_each, function, chunk))
                if len(waiting) * size >= ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise _killed(what) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _each(function: Callable[[T], R], items: list[T]) -> list[R]:
    return [function(item) for item in items]


def _killed(what: str) -> UserError:
    return UserError(f"{what}: a worker process was killed, for want of memory perhaps; run with fewer --cores")


def _start() -> None:
    """Set up a worker: Ctrl-C is handled by the parent, OpenCV has one thread, and the worker ends with the parent."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    end_with_parent()
