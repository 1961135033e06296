"""Leases of the GPUs of this machine: each GPU belongs to one job, by a lock that ends with its holder.

Snakemake grants a number of GPUs, but does not say which ones.
"""

import itertools
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from foldvote.runtime.locks import try_lock, turn

_POLL_SECONDS = 0.5


def visible_gpus() -> list[str]:
    """Ids of the NVIDIA devices that this process may use: CUDA_VISIBLE_DEVICES if it is set, otherwise all."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        ids = (part.strip() for part in chosen.split(","))
        return list(itertools.takewhile(lambda part: part not in ("", "-1"), ids))  # as CUDA does
    devices = Path("/dev").glob("nvidia[0-9]*")
    return sorted((match[1] for device in devices if (match := re.fullmatch(r"nvidia(\d+)", device.name))), key=int)


@contextmanager
def gpu_lease(log: Callable[[str], None], wanted: int, folder: Path | None = None) -> Iterator[list[str]]:
    """Take free GPUs for the block, and make only these visible to CUDA.

    A Slurm job has its own devices, and their numbers may be the same as in another job. So they are leased within the
    job, and a single device needs no lock.

    Args:
        log: called with one message if the job has to wait, and if there are fewer devices than wanted.
        wanted: number of GPUs granted to the job; 0 takes none.
        folder: folder of the lock files; None takes one of this user on this machine, or of this Slurm job.

    Yields:
        The ids of the devices: the wanted number, or all if there are fewer.
    """
    devices, slurm = visible_gpus() if wanted else [], os.environ.get("SLURM_JOB_ID")
    if 0 < len(devices) < wanted:
        log(f"warning: {wanted} GPUs were granted and {len(devices)} can be seen: the job goes on with these")
    wanted = min(wanted, len(devices))
    if not devices or (slurm and len(devices) == 1):
        yield devices
        return
    name = "-".join(filter(None, ["foldvote-gpus", str(os.getuid()), slurm]))
    held = _wait_for_devices(devices, wanted, folder or Path(tempfile.gettempdir()) / name, log)
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


def _wait_for_devices(devices: list[str], wanted: int, folder: Path, log: Callable[[str], None]) -> dict[str, IO[str]]:
    """Wait until enough devices are free. Returns their ids and locks."""
    logged = False
    while len(held := _try_all(devices, wanted, folder)) < wanted:
        if not logged:
            log(f"waiting for {wanted} of {len(devices)} GPUs to be free")
            logged = True
        time.sleep(_POLL_SECONDS)
    return held


def _try_all(devices: list[str], wanted: int, folder: Path) -> dict[str, IO[str]]:
    """Take as many devices as wanted, or none.

    No job holds some devices while it waits for more, and only one job tries at a time, so that jobs cannot block each
    other.
    """
    held: dict[str, IO[str]] = {}
    with turn(folder):
        for device in devices:
            file = try_lock(folder / f"{re.sub('[^A-Za-z0-9-]', '_', device)}.lock") if len(held) < wanted else None
            if file is not None:
                held[device] = file
        if len(held) < wanted:
            for file in held.values():
                file.close()
            held.clear()
    return held
