"""One function applied to many things on several processes, in order, with progress."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from foldvote.console import track
from foldvote.errors import Refusal

T = TypeVar("T")
R = TypeVar("R")
_ENOUGH_FOR_A_PROCESS = 200  # items: below that, starting a process costs more than it saves
_CHUNK = 16


def map_processes(function: Callable[[T], R], items: Sequence[T], workers: int, what: str) -> Iterator[R]:
    """Results of `function` on each item, in the items' order, as they become ready.

    Args:
        function: a module-level function or a `functools.partial` of one; it must not depend on being called in order.
        items: what it is applied to.
        workers: most processes to use; few items are done in this process.
        what: a few words for the progress display.

    Raises:
        Refusal: if a worker process dies.
    """
    processes = min(workers, len(items) // _ENOUGH_FOR_A_PROCESS + 1)
    if processes <= 1:
        yield from track(map(function, items), what, len(items))
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start) as pool:
        try:
            yield from track(pool.map(function, items, chunksize=_CHUNK), what, len(items))
        except BrokenProcessPool as error:
            raise Refusal(
                f"{what}: a worker process was killed, for want of memory perhaps; run with fewer --cores"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Leave Ctrl-C to the parent, and OpenCV's threads to nobody: the processes share the cores already."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
