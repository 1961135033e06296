"""Fixtures of all test files, and what makes them quick."""

import gc
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import pytest

# What torch reads when it is imported, here and in child processes: the tests' tiny nets run faster on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.disable()  # while all test files are imported


def pytest_collection_finish() -> None:
    """What the imports made stays, and is never searched for garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """No test file begins with the threads of another: a job sets them for its process."""
    if torch := sys.modules.get("torch"):  # the tests of light stages must not import it
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """The tests write thousands of files, and what a power cut leaves of them no test sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """No process or thread of a test file runs on after it: Python would wait for it at its end, maybe for ever."""
    before = set(multiprocessing.active_children())
    yield
    until = time.monotonic() + 10  # on a busy machine, what was told to end may need a moment
    while (left := _left(before)) and time.monotonic() < until:
        time.sleep(0.05)
    for process in left:
        if isinstance(process, BaseProcess):
            process.kill()
    assert not left, f"left behind: {left}"


def _left(before: set[BaseProcess]) -> list[object]:
    processes = [child for child in multiprocessing.active_children() if child not in before]
    ours = [one for one in threading.enumerate() if not one.name.startswith("ThreadPoolExecutor")]  # torch.compile's
    return [*processes, *(one for one in ours if one is not threading.main_thread() and not one.daemon)]
