"""Signals that ask a job to stop, and processes that end with their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that is set by SIGTERM, SIGINT and SIGUSR1 during the block; they do not end the process."""
    stopping = threading.Event()

    def set_event(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, set_event) for number in STOPPING}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process when its parent process has ended, for whatever reason."""
    threading.Thread(target=_wait_for_parent, daemon=True, name="watch-parent").start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
