"""Locks that end with their holder: one writer per folder, one job per GPU, one run per results folder.

These are flock(2) locks: the kernel frees them when the process ends, also after kill -9, so no stale lock is left
behind. The lock file names its holder for those who wait. The package filelock is not used: on a file system without
flock it falls back to lock files that stay after a kill, and its import would slow down every start of Snakemake.
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

MASTER = "FOLDVOTE_MASTER"  # environment variable: id of the Snakemake process that started the job
_POLL_SECONDS = 0.5


def announce_run() -> None:
    """Store the id of this process in the environment; its jobs stop when this process has ended.

    Every Snakemake process does this, also one that a cluster starts on another machine for a single job, because a
    process id is only valid on its own machine.
    """
    os.environ[MASTER] = str(os.getpid())


def try_lock(path: str | Path, shared: bool = False) -> IO[str] | None:
    """Try to take a lock, without waiting.

    Args:
        path: the lock file; its folder is created.
        shared: whether others may hold it at the same time, if they share it as well.

    Returns:
        The open file, which holds the lock until it is closed, or None if another process holds it.

    Raises:
        UserError: if the file cannot be written, or the file system has no locks.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}); choose another `results`") from error
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
    """A description of the process that holds a lock: `process 123 on host, since 2026-01-31 12:00:00`."""
    try:
        return Path(path).read_text(encoding="utf-8") or "an unknown process"
    except OSError:
        return "an unknown process"


@contextmanager
def folder_lock(folder: str | Path, log: Callable[[str], None], wait_seconds: float = 600) -> Iterator[None]:
    """Hold the lock of a folder during the block; wait if another process holds it.

    Args:
        folder: a folder that only one job may write to.
        log: called with one message if it has to wait.
        wait_seconds: how long to wait at most.

    Raises:
        UserError: if the folder is still locked after that time.
    """
    path = Path(folder) / "lock"
    started, logged = time.monotonic(), False
    while (file := try_lock(path)) is None:
        if not logged:
            log(f"{folder}: waiting for {holder(path)}, which still writes there")
            logged = True
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
    """Hold a short lock of a folder during the block. Others wait for it, so the block should be short.

    Args:
        folder: the folder of the lock file.
    """
    while (file := try_lock(Path(folder) / "turn")) is None:
        time.sleep(0.01)
    with file:
        yield


def run_lock(results: str | Path) -> IO[str]:
    """Take the lock of a run: a second run on the same results folder is refused.

    Args:
        results: the results folder.

    Returns:
        The open file, which holds the lock until it is closed.

    Raises:
        UserError: if another run holds the lock.
    """
    path = _run_lock(results)
    file = try_lock(path)
    if file is None:
        raise UserError(f"{results}: another run works here ({holder(path)}); wait for it, or set another `results`")
    return file


def busy(results: str | Path) -> str | None:
    """A description of the run that works in a results folder, or None. Creates no file."""
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
