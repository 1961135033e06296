"""What a person sees of a job: a log file that holds everything, and a console that holds what matters.

Under a job, standard output and error go to the log file, children and C libraries included; the console keeps
single lines and progress. On a terminal progress is a bar, elsewhere it is a line now and then.
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
PLAIN_SECONDS = 15  # between two progress lines where there is no terminal

_console: TextIO | None = None
_live: Progress | None = None  # the bar on the terminal, which lines must not be written into
_number = 0  # of this process among those of one job: the first alone speaks to the console


@contextmanager
def job(path: str | Path) -> Iterator[None]:
    """Run the block as a job: its output goes to `path`, a `UserError` ends it in one line and exit code 1.

    Also watches the Snakemake that started it: where that was killed, this process is told to stop (SIGTERM), so
    that no orphan goes on writing beside the next run.

    Args:
        path: the log file; its folder is made.
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
    _watch_master()
    try:
        yield
    except UserError as refusal:
        for fault in refusal.faults:
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
    """The console of a job, for a process that it starts to speak to; None outside a job."""
    return None if _console is None else _console.fileno()


def set_process_number(number: int, console: int | None) -> None:
    """Be one of the processes of a job.

    Args:
        number: from 0 on; all but the first speak to the log alone.
        console: descriptor of the job's console, which is kept; None outside a job.
    """
    global _console, _number
    _number = number
    if console is not None:
        _console = os.fdopen(console, "w", buffering=1, errors="backslashreplace")


def log(line: str) -> None:
    """One line for the user: on the console, and in the log where there is one."""
    if _number:
        print(f"[process {_number + 1}] {line}", file=sys.stderr, flush=True)
        return
    print(line, file=sys.stderr, flush=True)
    if _live is not None:
        _live.console.print(line, markup=False, highlight=False)
    elif _console is not None:
        print(line, file=_console, flush=True)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Pass `items` on and show how far it is: a bar on a terminal, else a line every 15 seconds.

    Args:
        items: anything to iterate over.
        what: a few words, such as `"decoding images"`.
        total: how many items there will be.
    """
    if _number:
        yield from items
        return
    stream = _console or sys.stderr
    if stream.isatty() and _live is None:
        yield from _bar(items, what, total, stream)
        return
    told = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - told > PLAIN_SECONDS:
            told = time.monotonic()
            log(f"{what}: {done:,} of {total:,}")
        yield item


def _bar(items: Iterable[T], what: str, total: int, stream: TextIO) -> Iterator[T]:
    global _live
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as _live:
        try:
            yield from _live.track(items, total=total, description=what)
        finally:
            _live = None


def _watch_master() -> None:
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
