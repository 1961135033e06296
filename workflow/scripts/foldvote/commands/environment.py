"""Checks of machine and environment: Python, packages, cores, memory, torch and GPU, disk.

Importing torch takes seconds and may crash, so a separate process does it.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from foldvote.runtime.checks import Finding, Level
from foldvote.runtime.gpus import visible_gpus

PYTHONS = ((3, 11), (3, 14))  # from the first, below the second
LITTLE_DISK, NO_DISK = 10e9, 0.5e9  # bytes
LITTLE_MEMORY = 4e9
LITTLE_SHARED = 0.5e9  # bytes of /dev/shm, through which loader processes pass batches
_TORCH_SECONDS = 180
_PROBE = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "usable": torch.cuda.is_available(), "devices": []}
for number in range(torch.cuda.device_count() if found["usable"] else 0):
    has = torch.cuda.get_device_properties(number)
    found["devices"].append({"name": has.name, "compute": has.major * 10 + has.minor, "bytes": has.total_memory})
found["built"] = [int(name[3:].rstrip("af")) for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
print(json.dumps(found))
"""


def examine_environment(project: Path) -> Iterator[Finding]:
    """Check Python and the installed packages.

    Args:
        project: the folder that holds pyproject.toml.
    """
    here, told = sys.version_info[:2], f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if PYTHONS[0] <= here < PYTHONS[1]:
        yield Finding("ok", told, "", "Python")
    else:
        yield Finding(
            "error",
            f"{told}; 3.11 to 3.13 are supported",
            "Make the environment again: make clean, then make run",
            "Python",
        )
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    wrong = [fault for text in declared if (fault := _misfit(Requirement(text)))]
    for fault in wrong:
        yield Finding("error", fault, "pip install --no-deps -r requirements.lock", "packages")
    if not wrong:
        shown = ", ".join(f"{name} {version(name)}" for name in ("snakemake", "torch", "timm", "albumentations"))
        yield Finding("ok", f"all {len(declared)} are there: {shown}", "", "packages")


def examine_hardware() -> Iterator[Finding]:
    """Check cores, memory, torch and GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("ok", f"{cores} for this process", "", "cores")
    memory = _memory()
    if memory is not None:
        level: Level = "warning" if memory < LITTLE_MEMORY else "ok"
        remedy = "Training may be killed: take fewer --cores, a smaller batch_size." if level == "warning" else ""
        yield Finding(level, f"{_size(memory)} free", remedy, "memory")
    yield from check_torch(_probe_torch(), visible_gpus(), _driver())


def check_torch(torch: dict[str, Any], gpus: list[str], driver: str) -> Iterator[Finding]:
    """Check whether networks can run on a GPU.

    Args:
        torch: the output of the probe, or {"error": text}.
        gpus: ids of the NVIDIA devices that this process may use.
        driver: version of the NVIDIA driver; empty if unknown.
    """
    if "error" in torch:
        remedy = "pip install --no-deps -r requirements.lock"
        yield Finding("error", f"cannot be imported: {torch['error']}", remedy, "torch")
        return
    kind = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built for CPUs only"
    wheel = f"{torch['version']}, {kind}"
    told = f"{len(gpus)} NVIDIA device(s) here, driver {driver or 'unknown'}"
    if torch["usable"]:
        yield Finding("ok", wheel, "", "torch")
        for device in torch["devices"]:
            yield _check_device(device, torch["built"])
    elif not gpus:
        yield Finding("ok", wheel, "", "torch")
        yield Finding("ok", "no NVIDIA device: networks train on the CPU", "", "GPU")
    elif not torch["cuda"]:
        remedy = "Install torch's CUDA wheel of the same version, or train on the CPU: --resources gpu=0."
        yield Finding("error", f"{wheel}, but {told}", remedy, "torch")
    else:
        remedy = (
            f"Update the driver to one for CUDA {torch['cuda']}, or install torch for an older CUDA; check "
            "CUDA_VISIBLE_DEVICES if it is set; or train on the CPU: --resources gpu=0."
        )
        yield Finding("error", f"{wheel}, but cannot use any of {told}", remedy, "torch")


def examine_disk(results: Path, needed: float = 0) -> Iterator[Finding]:
    """Check free space and permissions of the folders for results and temporary files.

    Args:
        results: the results folder; it need not exist.
        needed: bytes that the packed images will take.
    """
    place = next(folder for folder in (results.absolute(), *results.absolute().parents) if folder.is_dir())
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("error", f"{place}: cannot be written", "Choose another `results`.", "results")
    else:
        yield _check_room(place, "results", needed)
        yield from _check_locks(place)
    yield _check_room(Path(tempfile.gettempdir()), "scratch", 0)
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free < LITTLE_SHARED:
        text = f"{shared}: only {_size(shutil.disk_usage(shared).free)} free"
        yield Finding(
            "warning", text, "Loader processes need it: docker run --shm-size=2g, or runtime.workers: 0.", "shared"
        )


def _misfit(wanted: Requirement) -> str:
    """The fault of an installed package; empty if it meets the requirement."""
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    try:
        installed = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(installed, prereleases=True)
    return "" if fits else f"{wanted.name} {installed} is installed, but foldvote needs {wanted.specifier}"


def _probe_torch() -> dict[str, Any]:
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"it took more than {_TORCH_SECONDS} seconds"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _driver() -> str:
    """Version of the NVIDIA driver according to nvidia-smi; empty if unknown."""
    tool = shutil.which("nvidia-smi")
    if tool:
        asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.splitlines()[0].strip()
    return ""


def _check_device(device: dict[str, Any], built: list[int]) -> Finding:
    told = f"{device['name']}, {_size(device['bytes'])}, compute {device['compute'] / 10:.1f}"
    if built and device["compute"] < min(built):
        remedy = "Install torch built for CUDA 12.6, or use --resources gpu=0."
        return Finding("error", f"{told}: too old for this torch (from {min(built) / 10:.1f} on)", remedy, "GPU")
    return Finding("ok", told, "", "GPU")


def _check_room(place: Path, what: str, needed: float) -> Finding:
    free = shutil.disk_usage(place).free
    told = f"{place}: {_size(free)} free"
    told += f", about {_size(needed)} needed for packed images" if needed else ""
    if free < max(NO_DISK, needed):
        return Finding("error", told, "Free space, or choose another place.", what)
    if free < LITTLE_DISK and free < 10 * needed + NO_DISK * 4:
        return Finding("warning", told, "Little room: a full disk ends a run.", what)
    return Finding("ok", told, "", what)


def _check_locks(place: Path) -> Iterator[Finding]:
    """Check that the file system supports locks, which every run needs."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        text = f"{place}: files cannot be locked ({error.strerror})"
        yield Finding("error", text, "Put `results` on a file system with locks.", "results")


def _memory() -> float | None:
    """Bytes of available memory; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"
