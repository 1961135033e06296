"""Several processes that run one function together: they are started, watched and ended together.

The process that starts them does nothing else. The processes wait for each other all the time. So if one of them ends
early, all are ended, because the others would wait forever. No process outlives the one that started it.
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

GRACE_SECONDS = 5.0  # after one process has failed, the others have this time to end by themselves
_POLL_SECONDS = 0.2

# New processes: neither threads nor the state of a GPU driver survive a fork.
_SPAWN = multiprocessing.get_context("spawn")


class Ending(NamedTuple):
    """Why a process did not finish, as reported by itself: the kind of ending, and its messages."""

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

    Their output goes where the output of this process goes; the first one also writes to the console. SIGTERM, SIGINT
    and SIGUSR1 to this process are passed on to all of them.

    Args:
        body: a module-level function, or a `functools.partial` of one; called with 0, 1, ...
        processes: number of processes.
        what: a short description for messages.

    Raises:
        UserError: the error of the first process that raised one; or if a process was killed from outside.
        Interrupted: if they stopped because of a signal.
        RuntimeError: if a process failed; its traceback is printed.
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
    process = _SPAWN.Process(target=_run_process, args=(body, number, sends, _SentDescriptor(console_descriptor())))
    process.start()
    sends.close()  # so that the pipe ends when the process ends
    return _Started(process, receives)


def _run_process(body: Callable[[int], None], number: int, sends: Connection, console: int | None) -> None:
    """The main function of a started process."""
    end_with_parent()
    set_process_number(number, console)
    ending = _attempt(body, number)
    if ending is not None:
        sends.send(ending)
        sys.stdout.flush()
        sys.stderr.flush()
        # No clean-up, because it may wait for processes that have ended.
        os._exit(INTERRUPTED if ending.kind == "interrupted" else 1)


def _attempt(body: Callable[[int], None], number: int) -> Ending | None:
    try:
        body(number)
    except UserError as error:
        return Ending("refused", error.faults)
    except Interrupted as interruption:
        return Ending("interrupted", (str(interruption),))
    except Exception:
        traceback.print_exc()
        return Ending("failed")
    return None


def _watch(started: list[_Started], stopping: threading.Event) -> list[_Ended]:
    """Wait until all processes have ended, or for GRACE_SECONDS after one has failed; pass on a request to stop.

    Returns:
        The processes that ended, in the order in which they ended.
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
    """Raise one error if not all processes have finished.

    An error that a process reported itself comes first. Otherwise the cause is the process that was killed or, if none
    was, the one that ended first, because the others fail when it is missing.
    """
    reported = [one.ending for one in sorted(ended) if one.ending is not None]
    for ending in reported:
        if ending.kind == "refused":
            raise UserError(*ending.lines)
    stopped = [ending.lines[0] for ending in reported if ending.kind == "interrupted"]
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


class _SentDescriptor:
    """The file descriptor of the console, or None; picklable, so that it can be passed to another process."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        if self._descriptor is None:
            return _receive, (None,)
        return _receive, (reduction.DupFd(self._descriptor),)


def _receive(passed: Any) -> int | None:
    return None if passed is None else passed.detach()
