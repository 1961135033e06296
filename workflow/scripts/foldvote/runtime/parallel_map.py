"""One function applied to many things on several processes, in order, with progress."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from foldvote.errors import UserError
from foldvote.runtime.job_log import track
from foldvote.runtime.signals import end_with_parent

T = TypeVar("T")
R = TypeVar("R")
_CHUNKS_A_PROCESS = 32


def map_processes(
    function: Callable[[T], R], items: Sequence[T], workers: int, what: str, worth: int = 200
) -> Iterator[R]:
    """Results of `function` on each item, in the items' order, as they become ready.

    Args:
        function: a module-level function or a `functools.partial` of one; it must not depend on being called in order.
        items: what it is applied to.
        workers: most processes to use; few items are done in this process.
        what: a few words for the progress display.
        worth: number of items from which one process more saves what its start costs.

    Raises:
        UserError: if a worker process dies.
    """
    processes = min(workers, len(items) // worth + 1)
    if processes <= 1:
        yield from track(map(function, items), what, len(items))
        return
    # Served by a fresh process and not forked from this one, which has threads.
    context = multiprocessing.get_context("forkserver")
    chunk = min(max(len(items) // (processes * _CHUNKS_A_PROCESS), 1), 32)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start) as pool:
        try:
            yield from track(pool.map(function, items, chunksize=chunk), what, len(items))
        except BrokenProcessPool as error:
            reason = f"{what}: a worker process was killed, for want of memory perhaps; run with fewer --cores"
            raise UserError(reason) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Leave Ctrl-C to the parent, OpenCV's threads to nobody, and end with the parent even where it is killed."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    end_with_parent()
