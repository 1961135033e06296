"""Signals that ask a job to stop, and processes that end with their parent."""

import os
import signal
import time
from pathlib import Path

import pytest

from foldvote.runtime.signals import STOPPING, stop_on_signal
from support.processes import python


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_sets_the_event_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in STOPPING}
    with stop_on_signal() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), number)
        assert stopping.wait(10)
    assert {each: signal.getsignal(each) for each in STOPPING} == before


def test_f44_a_process_ends_when_its_parent_was_killed() -> None:
    code = """
        import multiprocessing, os, signal, time
        from foldvote.runtime.signals import end_with_parent

        def wait():
            end_with_parent()
            time.sleep(600)

        child = multiprocessing.get_context("fork").Process(target=wait)
        child.start()
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = python(code)
    child = int(parent.stdout.readline())
    assert parent.wait(60) == -signal.SIGKILL
    for _ in range(600):
        if not alive(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child outlived its parent")


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
