"""GPU leases: no device is shared by two jobs, and no job waits for ever."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from foldvote.errors import UserError
from foldvote.runtime import gpus as gpu_locks
from foldvote.runtime.gpus import gpu_lease, visible_gpus
from foldvote.runtime.locks import try_lock
from support.processes import python


@pytest.mark.parametrize(
    ("value", "devices"),
    [("0,1", ["0", "1"]), (" 2 , 3", ["2", "3"]), ("", []), ("-1", []), ("0,-1,1", ["0"]), ("GPU-ab12", ["GPU-ab12"])],
)
def test_visible_gpus_are_those_that_cuda_sees(monkeypatch: pytest.MonkeyPatch, value: str, devices: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == devices


ALIKE = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa1111-0000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa2222-0000)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa1111-0000)
  MIG 3g.20gb     Device  0: (UUID: MIG-bbbb1111-0000)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb2222-0000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa2222-0000)
"""
OLD_DIVIDED = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-aaaa1111-0000)
  MIG 3g.20gb Device 0: (UUID: MIG-GPU-aaaa1111-0000/1/0)
"""
MIXED = """\
GPU 0: NVIDIA T400 4GB (UUID: GPU-aaaa1111-0000)
GPU 1: NVIDIA RTX 6000 Ada Generation (UUID: GPU-aaaa2222-0000)
"""
BROKEN = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa1111-0000)
Unable to determine the device handle for gpu 0000:41:00.0: GPU is lost.
"""


def pretend_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, listing: str | None, files: str = "", code: int = 0
) -> None:
    """A machine with these device files, and an nvidia-smi with this answer; None: without one."""
    (folder / "bin").mkdir()
    if listing is not None:
        (folder / "listing").write_text(listing)
        tool = folder / "bin/nvidia-smi"
        tool.write_text(f'#!/bin/sh\n[ "$*" = -L ] && /bin/cat {folder}/listing\nexit {code}\n')
        tool.chmod(0o755)
    for name in files.split():
        (folder / name).touch()
    monkeypatch.setattr(gpu_locks, "_DEVICE_FILES", folder)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.parametrize(
    ("listing", "chosen", "devices"),
    [
        (ALIKE, None, "GPU-aaaa1111-0000 GPU-aaaa2222-0000"),
        (ALIKE, "1", "GPU-aaaa2222-0000"),
        (ALIKE, "1,0,1", "GPU-aaaa2222-0000 GPU-aaaa1111-0000"),
        (ALIKE, "GPU-aaaa2", "GPU-aaaa2222-0000"),
        (ALIKE, "1,GPU-aaaa2222-0000", "GPU-aaaa2222-0000"),  # one card under two names
        (ALIKE, "GPU-aaaa", "GPU-aaaa"),  # fits two: CUDA takes none
        (ALIKE, "7", "7"),  # not there: the job that gets it fails
        (ALIKE, "", ""),
        (ALIKE, "0,-1,1", "GPU-aaaa1111-0000"),
        (DIVIDED, None, "MIG-bbbb1111-0000 MIG-bbbb2222-0000 GPU-aaaa2222-0000"),
        (DIVIDED, "MIG-bbbb2", "MIG-bbbb2222-0000"),
        (DIVIDED, "0", "MIG-bbbb1111-0000 MIG-bbbb2222-0000"),
        (DIVIDED, "GPU-aaaa1", "MIG-bbbb1111-0000 MIG-bbbb2222-0000"),
        (OLD_DIVIDED, "MIG-GPU-aaaa1111-0000/1/0", "MIG-GPU-aaaa1111-0000/1/0"),
        (MIXED, None, "GPU-aaaa1111-0000 GPU-aaaa2222-0000"),
        (MIXED, "0", "0"),  # CUDA's first is the fast one, which nvidia-smi calls 1
        (BROKEN, None, "GPU-aaaa1111-0000"),
        ("No devices were found\n", None, ""),
    ],
)
def test_devices_are_named_by_uuid_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str, chosen: str | None, devices: str
) -> None:
    pretend_machine(tmp_path, monkeypatch, listing)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == devices.split()


def test_a_number_is_a_place_if_cuda_is_told_to_count_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_machine(tmp_path, monkeypatch, MIXED)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert visible_gpus() == ["GPU-aaaa1111-0000"]


@pytest.mark.parametrize(("listing", "code"), [(None, 0), ("Failed to initialize NVML: Driver/library mismatch\n", 18)])
def test_without_uuids_device_files_are_counted_as_their_numbers_are_not_cudas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: str | None, code: int
) -> None:
    files = "nvidia3 nvidia10 nvidiactl nvidia-uvm nvidia-modeset"  # the third and the eleventh card, in a container
    pretend_machine(tmp_path, monkeypatch, listing, files, code)
    assert visible_gpus() == ["0", "1"]
    with gpu_lease(print, 1, tmp_path / "locks") as devices:
        assert devices == ["0"] and os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_parts_of_a_gpu_are_leased_one_by_one_and_several_gpus_are_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_machine(tmp_path, monkeypatch, DIVIDED)
    told: list[str] = []
    with gpu_lease(told.append, 2, tmp_path / "locks") as devices:
        assert devices == ["GPU-aaaa2222-0000"]
    assert told == ["warning: 2 GPUs were granted and 1 can be seen: the job goes on with these"]
    with gpu_lease(print, 1, tmp_path / "locks") as devices:
        assert devices == ["MIG-bbbb1111-0000"] and os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-bbbb1111-0000"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with (
        pytest.raises(UserError, match=r"runtime.gpus_per_member: parts of a GPU \(MIG devices\)"),
        gpu_lease(print, 2, tmp_path / "locks"),
    ):
        pass


LEASE = """
    import os, sys, time
    from pathlib import Path
    from foldvote.runtime import gpus
    gpus._POLL_SECONDS = 0.01
    sharers = int(sys.argv[4]) if sys.argv[4:] else 1
    with gpus.gpu_lease(lambda _: None, int(sys.argv[3]), Path(sys.argv[1]), sharers) as devices:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(devices) and len(devices) == int(sys.argv[3])
        for word in ("takes", "leaves"):
            with open(sys.argv[2], "a") as diary:  # one write of few lines is not split
                diary.write("".join(f"{os.getpid()} {word} {device}\\n" for device in devices))
            time.sleep(0.03)
"""


@pytest.mark.parametrize(
    ("gpus", "each", "needed"), [("0,1", "11111111", "01"), ("0,1,2", "2222", "01"), ("0,1,2", "123123", "012")]
)
def test_gpus_are_never_shared_by_many_jobs_and_none_waits_for_ever(
    tmp_path: Path, gpus: str, each: str, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    diary = tmp_path / "diary"
    jobs = [python(LEASE, tmp_path / "gpus", diary, wanted, CUDA_VISIBLE_DEVICES=gpus) for wanted in each]
    assert [job.communicate(timeout=120)[1] for job in jobs] == [""] * len(jobs)
    taken: dict[str, str] = {}
    used = set()
    for line in diary.read_text().splitlines():
        process, word, device = line.split()
        if word == "takes":
            assert device not in taken, "two jobs on one device"
            taken[device] = process
            used.add(device)
        else:
            assert taken.pop(device) == process
    assert used >= set(needed) and not taken


@pytest.mark.parametrize(
    ("gpus", "jobs"),
    [
        ("0", "1x3 1x3 1x3 1x3 1x3 1x3"),
        ("0,1", "1x2 1x2 1x2 1x2 1x2 1x2 1x2"),
        ("0,1", "1x3 1x1 1x3 1x2 2x1 1x3 1x1 1x2"),  # several runs with settings of their own
    ],
)
def test_no_more_jobs_share_a_gpu_than_may_and_one_that_shares_with_none_is_alone(
    tmp_path: Path, gpus: str, jobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    diary, most = tmp_path / "diary", dict[int, int]()
    started = []
    for wanted, sharers in (job.split("x") for job in jobs.split()):
        started.append(python(LEASE, tmp_path / "gpus", diary, wanted, sharers, CUDA_VISIBLE_DEVICES=gpus))
        most[started[-1].pid] = int(sharers)
    assert [job.communicate(timeout=120)[1] for job in started] == [""] * len(started)
    on: dict[str, list[int]] = {device: [] for device in gpus.split(",")}
    served = set()
    for line in diary.read_text().splitlines():
        process, word, device = int(line.split()[0]), *line.split()[1:]
        if word == "takes":
            on[device].append(process)
            served.add(process)
            assert len(on[device]) <= max(most[one] for one in on[device]), f"{len(on[device])} jobs on {device}"
            assert len(on[device]) == 1 or min(most[one] for one in on[device]) > 1, "one of them was to be alone"
        else:
            on[device].remove(process)
    assert served == set(most) and not any(on.values())


def test_jobs_that_share_go_where_the_fewest_are_and_wait_where_there_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpu_locks, "_POLL_SECONDS", 0.01)
    told: list[str] = []
    leases, devices = [], []
    for _ in range(6):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
        leases.append(gpu_lease(told.append, 1, tmp_path, sharers=2))
        devices += leases[-1].__enter__()
    assert devices == ["0", "1", "2", "0", "1", "2"] and not told
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    threading.Timer(0.1, lambda: leases[4].__exit__(None, None, None)).start()
    with gpu_lease(told.append, 1, tmp_path, sharers=2) as late:
        assert late == ["1"] and told == ["waiting for 1 of 3 GPUs to be free"]
    for lease in leases[:4] + leases[5:]:
        lease.__exit__(None, None, None)
    with gpu_lease(told.append, 1, tmp_path, sharers=2) as first:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
        with gpu_lease(told.append, 1, tmp_path) as alone:
            assert (first, alone) == (["0"], ["1"])  # not on the first, although a place is free there
    assert len(told) == 1


def test_the_gpus_of_a_killed_job_are_free_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    code = LEASE.replace("time.sleep(0.03)", "time.sleep(600)")
    holder = python(code, tmp_path / "gpus", tmp_path / "diary", 2, CUDA_VISIBLE_DEVICES="0,1,2")
    while not (tmp_path / "diary").exists():
        assert holder.poll() is None
        time.sleep(0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(gpu_locks, "_POLL_SECONDS", 0.01)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        holder.kill()

    with gpu_lease(tell, 2, tmp_path / "gpus") as devices:
        assert devices == ["0", "1"] and holder.wait(10) == -signal.SIGKILL
    assert told == ["waiting for 2 of 3 GPUs to be free"]


def test_a_lease_waits_says_so_once_and_puts_the_environment_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1/0,5")
    monkeypatch.setattr(gpu_locks, "_POLL_SECONDS", 0.01)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        other.close()

    with gpu_lease(told.append, 1, tmp_path) as first, gpu_lease(told.append, 0, tmp_path) as none:
        assert (first, none) == (["MIG-1/0"], [])
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-1/0"
        other = try_lock(tmp_path / "5.lock")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
        with gpu_lease(tell, 1, tmp_path) as second:
            assert second == ["5"]
    assert told == ["waiting for 1 of 1 GPUs to be free"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpu_locks, "visible_gpus", lambda: ["0"])
    with gpu_lease(told.append, 1, tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_slurm_job_with_one_gpu_and_a_machine_without_take_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpu_lease(print, 1, tmp_path) as devices:
        assert devices == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with gpu_lease(print, 1, tmp_path) as devices:
        assert devices == ["3"] and os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    told: list[str] = []
    with gpu_lease(told.append, 3, tmp_path) as devices:
        assert devices == ["3"]
    assert told == ["warning: 3 GPUs were granted and 1 can be seen: the job goes on with these"]
    assert not list(tmp_path.iterdir())


def test_devices_of_a_slurm_job_are_leased_within_it_and_not_across_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    taken = []
    for job in ("17", "17", "18"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        lease = gpu_lease(print, 1)
        taken.append((lease.__enter__(), lease))
    assert [devices for devices, _ in taken] == [["0"], ["1"], ["0"]]
    for _, lease in taken:
        lease.__exit__(None, None, None)
