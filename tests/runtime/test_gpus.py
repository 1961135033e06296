"""GPU leases: no device is shared by two jobs, and no job waits for ever."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

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


LEASE = """
    import os, sys, time
    from pathlib import Path
    from foldvote.runtime import gpus
    gpus._POLL_SECONDS = 0.01
    with gpus.gpu_lease(lambda _: None, int(sys.argv[3]), Path(sys.argv[1])) as devices:
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
    killer = threading.Timer(0.1, holder.kill)
    killer.start()
    with gpu_lease(told.append, 2, tmp_path / "gpus") as devices:
        assert devices == ["0", "1"] and holder.wait(10) == -signal.SIGKILL
    killer.join()
    assert told == ["waiting for 2 of 3 GPUs to be free"]


def test_a_lease_waits_says_so_once_and_puts_the_environment_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1/0,5")
    monkeypatch.setattr(gpu_locks, "_POLL_SECONDS", 0.01)
    told: list[str] = []
    with gpu_lease(told.append, 1, tmp_path) as first, gpu_lease(told.append, 0, tmp_path) as none:
        assert (first, none) == (["MIG-1/0"], [])
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-1/0"
        threading.Timer(0.1, try_lock(tmp_path / "5.lock").close).start()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
        with gpu_lease(told.append, 1, tmp_path) as second:
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
