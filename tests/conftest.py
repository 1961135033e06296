"""Fixtures of several test files."""

import multiprocessing
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Nets as small as those of the tests run faster on one thread."""
    import torch  # here, as the tests of light stages must not import it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """No process or thread of a test file runs on after it: Python would wait for it at its end, maybe for ever."""
    before = set(multiprocessing.active_children())
    yield
    processes = [child for child in multiprocessing.active_children() if child not in before]
    ours = [one for one in threading.enumerate() if not one.name.startswith("ThreadPoolExecutor")]  # torch.compile's
    threads = [one for one in ours if one is not threading.main_thread() and not one.daemon]
    for process in processes:
        process.kill()
    assert not processes and not threads, f"left behind: {processes} {threads}"
