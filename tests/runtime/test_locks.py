"""Locks: one holder, freed when it ends however it ends, and its name for those who wait."""

import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from foldvote.errors import UserError
from foldvote.runtime import locks
from foldvote.runtime.locks import folder_lock, holder, run_lock, try_lock
from support.processes import python


def test_a_lock_is_held_by_one_and_free_when_closed(tmp_path: Path) -> None:
    path = tmp_path / "deep/lock"
    held = try_lock(path)
    assert held is not None and try_lock(path) is None
    assert f"process {os.getpid()} on {socket.gethostname()}, since " in holder(path)
    held.close()
    again = try_lock(path)
    assert again is not None
    again.close()
    assert holder(tmp_path / "none") == "an unknown process"


def test_a_lock_may_be_held_by_several_who_share_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = try_lock(path, shared=True), try_lock(path, shared=True)
    assert first is not None and second is not None and try_lock(path) is None
    first.close()
    assert try_lock(path) is None
    second.close()
    alone = try_lock(path)
    assert alone is not None and try_lock(path, shared=True) is None
    alone.close()


HOLD = """
    import sys, time
    from foldvote.runtime.locks import try_lock
    file = try_lock(sys.argv[1])
    print("held", flush=True)
    time.sleep(600)
"""


def test_f49_f50_a_lock_dies_with_its_holder_even_by_kill_9(tmp_path: Path) -> None:
    child = python(HOLD, tmp_path / "lock")
    assert child.stdout.readline() == "held\n"
    assert try_lock(tmp_path / "lock") is None
    assert f"process {child.pid} on" in holder(tmp_path / "lock")
    child.kill()
    child.wait()
    freed = try_lock(tmp_path / "lock")
    assert freed is not None
    freed.close()


def test_f50_a_job_that_outlives_its_snakemake_does_not_keep_the_lock_of_the_run(tmp_path: Path) -> None:
    code = """
        import os, signal, subprocess, sys
        from foldvote.runtime.locks import run_lock
        file = run_lock(sys.argv[1])
        job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(job.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = python(code, tmp_path)
    job = int(child.stdout.readline())
    try:
        child.wait()
        run_lock(tmp_path).close()
        os.kill(job, 0)
    finally:
        os.kill(job, signal.SIGKILL)


def test_f49_a_second_run_is_refused_in_one_line_and_the_first_unharmed(tmp_path: Path) -> None:
    child = python(HOLD, tmp_path / "locks/run.lock")
    assert child.stdout.readline() == "held\n"
    with pytest.raises(UserError) as error:
        run_lock(tmp_path)
    child.kill()
    child.wait()
    (told,) = error.value.faults
    assert told.startswith(f"{tmp_path}: another run works here (process {child.pid} on ")
    assert told.endswith("; wait for it, or set another `results`") and "\n" not in told


def test_f50_a_folder_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.01)
    told: list[str] = []
    held = try_lock(tmp_path / "lock")
    refused = pytest.raises(UserError, match=r"still locked by process .*; stop that process")
    with refused, folder_lock(tmp_path, told.append, 0.1):
        raise AssertionError("entered a locked folder")
    assert len(told) == 1 and "waiting for process" in told[0]
    entered = False

    def tell(line: str) -> None:
        told.append(line)
        held.close()

    with folder_lock(tmp_path, tell):
        entered = True
        assert try_lock(tmp_path / "lock") is None
    assert entered and len(told) == 2
    try_lock(tmp_path / "lock").close()


def test_a_file_system_without_locks_is_named_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", fails)
    with pytest.raises(UserError, match="cannot be locked"):
        try_lock(tmp_path / "lock")
