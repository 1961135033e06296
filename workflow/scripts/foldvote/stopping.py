"""The signals that ask a job to stop: what it does is brought to a good end first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM, SIGINT and SIGUSR1 set during the block, instead of ending the process."""
    stopping = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
