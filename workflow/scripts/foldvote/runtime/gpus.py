"""GPUs of this machine, leased to one job each by locks that die with their holder.

Snakemake hands out counts and no device numbers. Only the standard library: the Snakefile imports this.
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
            file = try_lock(folder / f"{re.sub('[^A-Za-z0-9-]', '_', device)}.lock") if len(held) < wanted else None
            if file is not None:
                held[device] = file
        if len(held) < wanted:
            for file in held.values():
                file.close()
            held.clear()
    return held
