"""Leases of the GPUs of this machine: a GPU belongs to one job, or to a few that share it, by locks that end with them.

A job that has a GPU to itself holds the GPU's lock. Jobs that share it hold this lock together, and one of the locks of
its places each. So runs whose jobs share GPUs and runs whose jobs do not can work side by side.

Snakemake grants a number of GPUs, but does not say which ones. They are named by UUID where nvidia-smi tells it, as
numbers do not mean the same everywhere: those of the device files are not CUDA's inside a container, and those of
nvidia-smi are not CUDA's on a machine with different cards.
"""

import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from foldvote.errors import UserError
from foldvote.runtime.locks import try_lock, turn

_POLL_SECONDS = 0.5
_LISTING_SECONDS = 60  # nvidia-smi may have to start the driver first
_MIG = "MIG-"
_DEVICE_FILES = Path("/dev")
_Held = dict[str, list[IO[str]]]  # devices, and the open lock files of each


class _Gpu(NamedTuple):
    """One card: its name, its UUID, and what can be leased of it, its MIG devices or the card as a whole."""

    name: str
    uuid: str
    devices: list[str]


def visible_gpus() -> list[str]:
    """Ids of the NVIDIA devices that this process may use, in the form that CUDA_VISIBLE_DEVICES takes.

    UUIDs of GPUs, or of MIG devices for a GPU that is divided; CUDA's numbers where nvidia-smi cannot tell the UUID.
    CUDA_VISIBLE_DEVICES limits them if it is set, to numbers, UUIDs or beginnings of UUIDs. An entry that fits no
    device is kept as it is, so that the job which gets it fails instead of running on the CPU.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [device for gpu in _listed() for device in gpu.devices] or _numbers()
    stripped = (entry.strip() for entry in chosen.split(","))
    entries = list(itertools.takewhile(lambda entry: entry not in ("", "-1"), stripped))  # as CUDA does
    gpus = _listed() if entries else []
    return list(dict.fromkeys(device for entry in entries for device in _resolve(entry, gpus)))


def _listed() -> list[_Gpu]:
    """The GPUs that nvidia-smi lists, in its order; none without nvidia-smi or if it fails."""
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if tool is None:
        return []
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=_LISTING_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _parse(done.stdout) if done.returncode == 0 else []


def _parse(listing: str) -> list[_Gpu]:
    """Read the output of `nvidia-smi -L`; indented lines are the MIG devices of the GPU before them."""
    gpus: list[_Gpu] = []
    for line in listing.splitlines():
        if match := re.match(r"GPU \d+: (.*) \(UUID: (GPU-[^)]+)\)", line):
            gpus.append(_Gpu(match[1], match[2], []))
        elif gpus and (match := re.match(rf"\s+MIG .*\(UUID: ({_MIG}[^)]+)\)", line)):
            gpus[-1].devices.append(match[1])
    return [gpu._replace(devices=gpu.devices or [gpu.uuid]) for gpu in gpus]


def _numbers() -> list[str]:
    """CUDA's numbers of the GPUs that have a device file: it counts those that it can open, by whatever name."""
    files = [file for file in _DEVICE_FILES.glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", file.name)]
    return [str(number) for number in range(len(files))]


def _resolve(entry: str, gpus: list[_Gpu]) -> list[str]:
    """The devices that an entry of CUDA_VISIBLE_DEVICES stands for; the entry itself if that cannot be told."""
    if entry.isdecimal():
        # CUDA counts from the fastest card on and nvidia-smi by place: the same only where all cards are alike.
        alike = len({gpu.name for gpu in gpus}) == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        found = [gpu.devices for gpu in gpus[int(entry) : int(entry) + 1] if alike]
    else:
        found = [gpu.devices for gpu in gpus if gpu.uuid.startswith(entry)]
        found += [[device] for gpu in gpus for device in gpu.devices if device != gpu.uuid and device.startswith(entry)]
    return found[0] if len(found) == 1 else [entry]


@contextmanager
def gpu_lease(
    log: Callable[[str], None], wanted: int, folder: Path | None = None, sharers: int = 1
) -> Iterator[list[str]]:
    """Take free GPUs for the block, or a place on one, and make only these visible to CUDA.

    A Slurm job has its own devices, and their numbers may be the same as in another job. So they are leased within the
    job, and a single device needs no lock.

    Args:
        log: called with one message if the job has to wait, and if there are fewer devices than wanted.
        wanted: number of GPUs granted to the job; 0 takes none.
        folder: folder of the lock files; None takes one of this user on this machine, or of this Slurm job.
        sharers: number of jobs that may be on one GPU, `runtime.members_per_gpu`. A job of several GPUs shares none.

    Yields:
        The ids of the devices: the wanted number, or all if there are fewer.

    Raises:
        UserError: if several are wanted, and there are only MIG devices.
    """
    devices, slurm = visible_gpus() if wanted else [], os.environ.get("SLURM_JOB_ID")
    if wanted > 1 and devices:
        devices = _whole(devices)
    if 0 < len(devices) < wanted:
        log(f"warning: {wanted} GPUs were granted and {len(devices)} can be seen: the job goes on with these")
    wanted = min(wanted, len(devices))
    if not devices or (slurm and len(devices) == 1):
        yield devices
        return
    name = "-".join(filter(None, ["foldvote-gpus", str(os.getuid()), slurm]))
    held = _wait_for_devices(devices, wanted, sharers, folder or Path(tempfile.gettempdir()) / name, log)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    try:
        yield list(held)
    finally:
        _free(held)
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _whole(devices: list[str]) -> list[str]:
    """The devices that can train one member together: a process sees one MIG device, and NCCL connects none."""
    whole = [device for device in devices if not device.startswith(_MIG)]
    if not whole:
        raise UserError(
            "runtime.gpus_per_member: parts of a GPU (MIG devices) cannot train one member together; set it to 1, or "
            "name whole GPUs in CUDA_VISIBLE_DEVICES"
        )
    return whole


def _wait_for_devices(devices: list[str], wanted: int, sharers: int, folder: Path, log: Callable[[str], None]) -> _Held:
    """Wait until enough devices are free. Returns their ids and locks."""
    logged = False
    while len(held := _try_all(devices, wanted, sharers, folder)) < wanted:
        if not logged:
            log(f"waiting for {wanted} of {len(devices)} GPUs to be free")
            logged = True
        time.sleep(_POLL_SECONDS)
    return held


def _try_all(devices: list[str], wanted: int, sharers: int, folder: Path) -> _Held:
    """Take as many devices as wanted, or none.

    No job holds some devices while it waits for more, and only one job tries at a time, so that jobs cannot block each
    other.
    """
    with turn(folder):
        if wanted == 1 and sharers > 1:
            return _try_place(devices, sharers, folder)
        held: _Held = {}
        for device in devices:
            file = try_lock(_lock_file(folder, device)) if len(held) < wanted else None
            if file is not None:
                held[device] = [file]
        if len(held) < wanted:
            _free(held)
            held.clear()
    return held


def _try_place(devices: list[str], sharers: int, folder: Path) -> _Held:
    """Take a place on the GPU that has the most free ones, the first of equals; nothing where there is none."""
    free: _Held = {}
    for device in devices:
        if (file := try_lock(_lock_file(folder, device), shared=True)) is not None:
            places = [try_lock(_lock_file(folder, f"{device}.{number}")) for number in range(sharers)]
            free[device] = [file, *filter(None, places)]
    emptiest = max(free, key=lambda device: len(free[device]), default="")
    held = {emptiest: free[emptiest][:2]} if len(free.get(emptiest, [])) > 1 else {}
    _free({device: [file for file in files if file not in held.get(device, [])] for device, files in free.items()})
    return held


def _lock_file(folder: Path, name: str) -> Path:
    return folder / f"{re.sub('[^A-Za-z0-9.-]', '_', name)}.lock"


def _free(held: _Held) -> None:
    for files in held.values():
        for file in files:
            file.close()
