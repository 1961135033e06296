"""Locks that die with their holder: one writer a folder, one job a GPU, one run a results folder.

They are flock(2) locks: the kernel frees them when the process ends, however it ends, so nothing stale is left to
unlock. The lock file names its holder for whoever has to wait. Only the standard library: the Snakefile imports this.
"""

import fcntl
import itertools
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from foldvote.errors import Refusal

MASTER = "FOLDVOTE_MASTER"  # environment variable: process id of the Snakemake that started a job, on its machine
_POLL_SECONDS = 0.5


def announce_run() -> None:
    """Tell the jobs that this process starts which process that is: one that outlives it stops itself.

    Every Snakemake says so for itself, also one that a cluster started on another machine for a single job: a process
    id means nothing elsewhere.
    """
    os.environ[MASTER] = str(os.getpid())


def take(path: str | Path) -> IO[str] | None:
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
        raise Refusal(f"{path.parent}: cannot be written ({error.strerror}); choose another `results`") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise Refusal(
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
        Refusal: if the folder is still locked then.
    """
    path = Path(folder) / "lock"
    started, told = time.monotonic(), False
    while (file := take(path)) is None:
        if not told:
            say(f"{folder}: waiting for {holder(path)}, which still writes there")
            told = True
        if time.monotonic() - started > wait_seconds:
            raise Refusal(
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
    while (file := take(Path(folder) / "turn")) is None:
        time.sleep(0.01)
    with file:
        yield


def run_lock(results: str | Path) -> IO[str]:
    """The lock of a whole run: a second run on the same results folder is refused and does no harm.

    Raises:
        Refusal: if another run holds it.
    """
    path = _run_lock(results)
    file = take(path)
    if file is None:
        raise Refusal(f"{results}: another run works here ({holder(path)}); wait for it, or set another `results`")
    return file


def busy(results: str | Path) -> str | None:
    """Who runs in a results folder right now, in words; None where nobody does. Makes nothing."""
    path = _run_lock(results)
    if not path.is_file():
        return None
    file = take(path)
    if file is None:
        return holder(path)
    file.close()
    return None


def _run_lock(results: str | Path) -> Path:
    return Path(results) / "locks" / "run.lock"


def visible_gpus() -> list[str]:
    """Ids of the NVIDIA devices this process may use: CUDA_VISIBLE_DEVICES where it is set, else all."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        ids = (part.strip() for part in chosen.split(","))
        return list(itertools.takewhile(lambda part: part not in ("", "-1"), ids))  # CUDA stops there, too
    devices = Path("/dev").glob("nvidia[0-9]*")
    return sorted((match[1] for device in devices if (match := re.fullmatch(r"nvidia(\d+)", device.name))), key=int)


@contextmanager
def gpu_lease(say: Callable[[str], None], wanted: int, folder: Path | None = None) -> Iterator[list[str]]:
    """Take free GPUs for the block and show only these to CUDA.

    Snakemake hands out numbers of GPUs, never which. Slurm has given its job devices of its own, which may bear the
    numbers of another job's: they are shared out within the job, and a single one is simply taken.

    Args:
        say: told once when too few devices are free and the job waits, and when there are fewer than wanted.
        wanted: how many GPUs the job was granted; with 0 nothing is taken.
        folder: where the locks lie; default: one for this user on this machine, or in this Slurm job.

    Yields:
        The ids of the devices, as many as wanted or as there are; none on a machine without.
    """
    devices, slurm = visible_gpus() if wanted else [], os.environ.get("SLURM_JOB_ID")
    if 0 < len(devices) < wanted:
        say(f"warning: {wanted} GPUs were granted and {len(devices)} can be seen: the job goes on with these")
    wanted = min(wanted, len(devices))
    if not devices or (slurm and len(devices) == 1):
        yield devices
        return
    mine = "-".join(filter(None, ["foldvote-gpus", str(os.getuid()), slurm]))
    held = _free(devices, wanted, folder or Path(tempfile.gettempdir()) / mine, say)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    try:
        yield list(held)
    finally:
        for file in held.values():
            file.close()
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _free(devices: list[str], wanted: int, folder: Path, say: Callable[[str], None]) -> dict[str, IO[str]]:
    """The first devices that are free, with their locks; waits until there are enough."""
    told = False
    while len(held := _try_all(devices, wanted, folder)) < wanted:
        if not told:
            say(f"waiting for {wanted} of {len(devices)} GPUs to be free")
            told = True
        time.sleep(_POLL_SECONDS)
    return held


def _try_all(devices: list[str], wanted: int, folder: Path) -> dict[str, IO[str]]:
    """Take as many devices as wanted, or none.

    Nobody holds some while waiting for more, and one job tries at a time: two jobs never keep each other from starting.
    """
    held: dict[str, IO[str]] = {}
    with turn(folder):
        for device in devices:
            file = take(folder / f"{re.sub('[^A-Za-z0-9-]', '_', device)}.lock") if len(held) < wanted else None
            if file is not None:
                held[device] = file
        if len(held) < wanted:
            for file in held.values():
                file.close()
            held.clear()
    return held
