"""Locks that die with their holder: one writer a folder, one job a GPU, one run a results folder.

They are flock(2) locks: the kernel frees them when the process ends, however it ends, so nothing stale is left to
unlock. The lock file names its holder for whoever has to wait. Only the standard library: the Snakefile imports this.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from foldvote.errors import UserError

MASTER = "FOLDVOTE_MASTER"  # environment variable: process id of the Snakemake that started a job, on its machine
_POLL_SECONDS = 0.5


def announce_run() -> None:
    """Tell the jobs that this process starts which process that is: one that outlives it stops itself.

    Every Snakemake says so for itself, also one that a cluster started on another machine for a single job: a process
    id means nothing elsewhere.
    """
    os.environ[MASTER] = str(os.getpid())


def try_lock(path: str | Path) -> IO[str] | None:
    """Try to take a lock at once.

    Args:
        path: the lock file; its folder is made.

    Returns:
        The open file, which holds the lock until it is closed, or None when another process holds it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}); choose another `results`") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise UserError(
            f"{path}: cannot be locked ({error.strerror}); put it on a file system with locks (another `results`)"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    return file


def holder(path: str | Path) -> str:
    """Who holds a lock, in words."""
    try:
        return Path(path).read_text(encoding="utf-8") or "an unknown process"
    except OSError:
        return "an unknown process"


@contextmanager
def folder_lock(folder: str | Path, say: Callable[[str], None], wait_seconds: float = 600) -> Iterator[None]:
    """Hold the lock of a folder during the block; wait for a holder that is about to end.

    Args:
        folder: the folder that only one job may write to.
        say: told once when there is something to wait for.
        wait_seconds: how long to wait.

    Raises:
        UserError: if the folder is still locked then.
    """
    path = Path(folder) / "lock"
    started, told = time.monotonic(), False
    while (file := try_lock(path)) is None:
        if not told:
            say(f"{folder}: waiting for {holder(path)}, which still writes there")
            told = True
        if time.monotonic() - started > wait_seconds:
            raise UserError(
                f"{folder}: still locked by {holder(path)}; stop that process, then run the same command again"
            )
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        file.close()


@contextmanager
def turn(folder: str | Path) -> Iterator[None]:
    """Have the one turn of a folder for the block, which others wait for: it should last for a moment."""
    while (file := try_lock(Path(folder) / "turn")) is None:
        time.sleep(0.01)
    with file:
        yield


def run_lock(results: str | Path) -> IO[str]:
    """The lock of a whole run: a second run on the same results folder is refused and does no harm.

    Raises:
        UserError: if another run holds it.
    """
    path = _run_lock(results)
    file = try_lock(path)
    if file is None:
        raise UserError(f"{results}: another run works here ({holder(path)}); wait for it, or set another `results`")
    return file


def busy(results: str | Path) -> str | None:
    """Who runs in a results folder right now, in words; None where nobody does. Makes nothing."""
    path = _run_lock(results)
    if not path.is_file():
        return None
    file = try_lock(path)
    if file is None:
        return holder(path)
    file.close()
    return None


def _run_lock(results: str | Path) -> Path:
    return Path(results) / "locks" / "run.lock"
