"""Several processes that do one thing together, and are started, watched and ended as one.

The process that starts them does nothing else. They wait for each other all the time, so that what ends one of them
ends all: the others would wait for ever. None outlives the process that started it.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, NamedTuple

from foldvote.errors import INTERRUPTED, Interrupted, UserError
from foldvote.runtime.job_log import console_descriptor, set_process_number
from foldvote.runtime.signals import end_with_parent, stop_on_signal

GRACE_SECONDS = 5.0  # that the others have to end by themselves after one has failed
_POLL_SECONDS = 0.2

# Fresh processes: neither threads nor a driver's state survive a fork.
_SPAWN = multiprocessing.get_context("spawn")


class Ending(NamedTuple):
    """How a process ended that did not finish, in its own words."""

    kind: Literal["refused", "interrupted", "failed"]
    lines: tuple[str, ...] = ()


class _Started(NamedTuple):
    process: SpawnProcess
    receives: Connection


class _Ended(NamedTuple):
    number: int
    code: int
    ending: Ending | None


def run_together(body: Callable[[int], None], processes: int, what: str) -> None:
    """Call a function in several new processes at once, and wait for all of them.

    What they print goes where this process prints; the first of them also speaks to the console. SIGTERM, SIGINT and
    SIGUSR1 to this process are passed on to all.

    Args:
        body: a function of the module level, or a `functools.partial` of one; called with 0, 1, ...
        processes: how many.
        what: a few words for messages.

    Raises:
        UserError: that of the first process which refused; or if one was killed from outside.
        Interrupted: if they stopped because they were asked to.
        RuntimeError: if one failed; its traceback is printed.
    """
    started: list[_Started] = []
    with stop_on_signal() as stopping:
        try:
            started.extend(_start(body, number) for number in range(processes))
            ids = ", ".join(str(one.process.pid) for one in started)
            print(f"{what}: processes {ids}", file=sys.stderr, flush=True)
            ended = _watch(started, stopping)
        finally:
            for one in started:
                one.process.kill()
                one.process.join()
    _conclude(ended, stopping.is_set(), processes, what)


def _start(body: Callable[[int], None], number: int) -> _Started:
    receives, sends = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_live, args=(body, number, sends, _Console(console_descriptor())))
    process.start()
    sends.close()  # so that the end of the process is the end of what can be received
    return _Started(process, receives)


def _live(body: Callable[[int], None], number: int, sends: Connection, console: int | None) -> None:
    """What a started process does."""
    end_with_parent()
    set_process_number(number, console)
    ending = _attempt(body, number)
    if ending is not None:
        sends.send(ending)
        sys.stdout.flush()
        sys.stderr.flush()
        # At once: tidying up may wait for processes that are gone.
        os._exit(INTERRUPTED if ending.kind == "interrupted" else 1)


def _attempt(body: Callable[[int], None], number: int) -> Ending | None:
    try:
        body(number)
    except UserError as refusal:
        return Ending("refused", refusal.faults)
    except Interrupted as interruption:
        return Ending("interrupted", (str(interruption),))
    except Exception:
        traceback.print_exc()
        return Ending("failed")
    return None


def _watch(started: list[_Started], stopping: threading.Event) -> list[_Ended]:
    """Wait until all have ended, or for a while after one has failed; pass on what asks to stop.

    Returns:
        Those that ended, in this order.
    """
    ended: list[_Ended] = []
    running, asked, deadline = dict(enumerate(started, start=1)), False, math.inf
    while running and time.monotonic() < deadline:
        wait([one.process.sentinel for one in running.values()], _POLL_SECONDS)
        for number, one in list(running.items()):
            if (code := one.process.exitcode) is not None:
                del running[number]
                ended.append(_Ended(number, code, _ending(one)))
                if code not in (0, INTERRUPTED):
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if stopping.is_set() and not asked:
            asked = True
            for one in running.values():
                with suppress(ProcessLookupError):
                    os.kill(one.process.pid or 0, signal.SIGTERM)
    return ended


def _ending(one: _Started) -> Ending | None:
    try:
        return one.receives.recv() if one.receives.poll() else None
    except EOFError:
        return None


def _conclude(ended: list[_Ended], asked: bool, processes: int, what: str) -> None:
    """Tell once why not all have finished.

    What a process says is worth most. Else it is the one that was killed, which has no part in it, or the one that
    ended first: others fail because they miss it.
    """
    told = [one.ending for one in sorted(ended) if one.ending is not None]
    for ending in told:
        if ending.kind == "refused":
            raise UserError(*ending.lines)
    stopped = [ending.lines[0] for ending in told if ending.kind == "interrupted"]
    failed = sorted((one for one in ended if one.code), key=lambda one: one.code != -signal.SIGKILL)
    if stopped or (asked and failed):
        last = f"{what}: stopped as asked; the same command goes on from the last checkpoint"
        raise Interrupted(next(iter(stopped), last))
    for one in failed:
        which = f"{what}: process {one.number} of {processes}"
        if one.code > 0:
            raise RuntimeError(f"{which} failed with exit code {one.code}")
        raise UserError(
            f"{which} was ended by {signal.Signals(-one.code).name}, and the others with it; memory is the usual "
            "reason; the same command goes on from the last checkpoint"
        )


class _Console:
    """The descriptor of the console, or None, on its way to another process."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        if self._descriptor is None:
            return _received, (None,)
        return _received, (reduction.DupFd(self._descriptor),)


def _received(passed: Any) -> int | None:
    return None if passed is None else passed.detach()
