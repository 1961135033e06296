"""The log file of a job, and its messages and progress on the console.

In a job, standard output and standard error go to the log file, those of child processes and C libraries included. The
console shows messages (`log`) and progress: a bar on a terminal, otherwise a line now and then.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foldvote.errors import INTERRUPTED, Interrupted, UserError
from foldvote.runtime.locks import MASTER

T = TypeVar("T")
PLAIN_SECONDS = 15  # between two progress lines without a terminal

_console: TextIO | None = None
_progress: Progress | None = None  # the bar on the terminal, above which messages are printed
_number = 0  # of this process in its job; only process 0 writes to the console


@contextmanager
def job(path: str | Path) -> Iterator[None]:
    """Run the block as a job: its output goes to `path`; a `UserError` is logged, and the process exits with code 1.

    The Snakemake process that started the job is watched: if it was killed, this process receives SIGTERM, so that it
    does not keep writing beside the next run.

    Args:
        path: the log file; its folder is created.
    """
    global _console
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        log(f"error: {path}: cannot be written ({error.strerror}); choose another `results`")
        raise SystemExit(1) from None
    _console = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    _watch_snakemake()
    try:
        yield
    except UserError as error:
        for fault in error.faults:
            log(f"error: {fault}")
        raise SystemExit(1) from None
    except Interrupted as interruption:
        log(str(interruption))
        raise SystemExit(INTERRUPTED) from None
    except Exception:
        traceback.print_exc()
        log(f"error: unexpected failure, an error in foldvote itself; the traceback is in {path}")
        raise SystemExit(1) from None


def console_descriptor() -> int | None:
    """The file descriptor of the job's console, to hand to a child process; None outside a job."""
    return None if _console is None else _console.fileno()


def set_process_number(number: int, console: int | None) -> None:
    """Make this process one of several that run a job together.

    Args:
        number: number of this process, from 0; only process 0 writes to the console, the others to the log file.
        console: file descriptor of the job's console; None outside a job.
    """
    global _console, _number
    _number = number
    if console is not None:
        _console = os.fdopen(console, "w", buffering=1, errors="backslashreplace")


def log(line: str) -> None:
    """Write one line for the user to the console, and in a job also to its log file."""
    if _number:
        print(f"[process {_number + 1}] {line}", file=sys.stderr, flush=True)
        return
    print(line, file=sys.stderr, flush=True)
    if _progress is not None:
        _progress.console.print(line, markup=False, highlight=False)
    elif _console is not None:
        print(line, file=_console, flush=True)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Iterate over `items` and show the progress: a bar on a terminal, otherwise a line every 15 seconds.

    Args:
        items: any iterable.
        what: a short description, such as `"decoding images"`.
        total: the number of items.
    """
    if _number:
        yield from items
        return
    stream = _console or sys.stderr
    if stream.isatty() and _progress is None:
        yield from _bar(items, what, total, stream)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last > PLAIN_SECONDS:
            last = time.monotonic()
            log(f"{what}: {done:,} of {total:,}")
        yield item


def _bar(items: Iterable[T], what: str, total: int, stream: TextIO) -> Iterator[T]:
    global _progress
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as _progress:
        try:
            yield from _progress.track(items, total=total, description=what)
        finally:
            _progress = None


def _watch_snakemake() -> None:
    master = int(os.environ.get(MASTER, "0"))
    if not master or not _alive(master):
        return

    def watch() -> None:
        while _alive(master):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="watch-snakemake").start()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
