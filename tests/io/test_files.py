"""The ground: whole files, draws by counter, locks that die with their holder, the console, worker processes."""

import errno
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.commands.session import begin_run
from foldvote.errors import INTERRUPTED, UserError, raise_all
from foldvote.io import files
from foldvote.io.files import (
    canonical,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_lines,
    whole_file,
    write_bytes,
    write_json,
)
from foldvote.runtime import gpus as gpu_locks
from foldvote.runtime import job_log, locks
from foldvote.runtime.gpus import gpu_lease, visible_gpus
from foldvote.runtime.job_log import log, track
from foldvote.runtime.locks import folder_lock, holder, run_lock, try_lock
from foldvote.runtime.parallel_map import map_processes
from foldvote.runtime.seeding import derive, generator

LIBRARY = Path(__file__).resolve().parents[2] / "workflow/scripts"


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A process of its own that can import the library."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(LIBRARY)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- files


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.bin"
    with whole_file(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_bytes(b"first")
        assert not path.exists()
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["c.bin"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), UserError("x")])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "c.bin"
    write_bytes(path, b"old")
    with pytest.raises(type(error)), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.bin"]


def test_f37_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.bin"
    write_bytes(path, b"old")
    code = """
        import os, signal, sys
        from foldvote.io.files import whole_file
        with whole_file(sys.argv[1]) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, path).wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
def test_f45_f46_a_place_that_takes_no_bytes_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "c.bin"
    write_bytes(path, b"old")

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(UserError) as refusal:
        write_bytes(path, b"new")
    assert refusal.value.faults == (
        f"{path}: cannot be written: {os.strerror(number)}; free space or choose another `results`",
    )
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.bin"]


@pytest.mark.parametrize("below", ["results", "results/oof/model=a", "results/" + "n" * 300])
def test_f46_results_below_a_regular_file_are_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match="cannot be written") as refusal:
        write_json(tmp_path / below / "x.json", {})
    assert str(tmp_path / below) in str(refusal.value)
    with pytest.raises(UserError, match="cannot be written"):
        try_lock(tmp_path / below / "lock")
    assert (tmp_path / "results").read_text() == "a file"


def test_a_file_over_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "x.json", {})


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2], "a": "가"})
    write_json(tmp_path / "b.json", {"a": "가", "b": [1, 2]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": "가", "b": [1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"{'a': 1}"])
def test_what_is_no_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match="not readable as JSON") as refusal:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(refusal.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: missing; run `snakemake` again"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"none\.pth: cannot be read \(No such file"):
        sha256_file(tmp_path / "none.pth")


def test_digests_are_sha256(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "x").write_bytes(b"a\nb\n")
    assert sha256_bytes(b"") == sha256_lines(iter(())) == empty
    assert sha256_file(tmp_path / "x") == sha256_bytes(b"a\nb\n") == sha256_lines(iter(["a", "b"]))


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.characters(blacklist_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def turned(content: object) -> object:
    """The same content with the keys of every mapping in the other order."""
    if isinstance(content, dict):
        return {key: turned(content[key]) for key in reversed(content)}
    return [turned(item) for item in content] if isinstance(content, list) else content


@given(JSON, JSON)
def test_canonical_texts_are_equal_exactly_where_contents_are(first: object, second: object) -> None:
    assert canonical(first) == canonical(turned(first))
    assert json.loads(canonical(first)) == first
    assert (canonical(first) == canonical(second)) == (first == second)


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    raise_all([])
    with pytest.raises(UserError) as refusal:
        raise_all(f"fault {number}" for number in range(25))
    assert len(refusal.value.faults) == 21 and refusal.value.faults[-1] == "... and 5 more of this kind"


# --- draws

KEYS = st.lists(
    st.integers(-(2**63), 2**63) | st.text(st.characters(blacklist_categories=["Cs"]), max_size=6), max_size=5
)


def test_draws_are_the_same_on_every_machine_and_in_every_release() -> None:
    assert derive(42) == 7014992390951794165
    assert derive(42, "augment", 3, 7, "000001_female_Asian_45/normal.jpg") == 1236010098151913863
    assert generator(1, "order", "가", 0, 2).permutation(8).tolist() == [5, 4, 6, 7, 2, 1, 3, 0]


@given(st.integers(0, 2**53 - 1), KEYS, st.integers(0, 2**53 - 1), KEYS)
def test_another_key_or_seed_is_another_draw(seed: int, key: list, other_seed: int, other_key: list) -> None:
    assert 0 <= derive(seed, *key) < 2**63
    assert (derive(seed, *key) == derive(other_seed, *other_key)) == ((seed, key) == (other_seed, other_key))


def test_keys_cannot_be_mistaken_for_one_another() -> None:
    keys = [
        (),
        ("",),
        (0,),
        ("0",),
        (0, 0),
        ("0", 0),
        ("0,0",),
        ("a", "b"),
        ("ab",),
        ("a,b",),
        ('a","b',),
        (-1,),
        ("-1",),
    ]
    seeds = {derive(seed, *key) for seed in (0, 1, 10) for key in keys}
    assert len(seeds) == 3 * len(keys)


def test_neighbouring_keys_give_unrelated_streams() -> None:
    first = [generator(1, "x", number).random() for number in range(4000)]
    assert abs(sum(first) / len(first) - 0.5) < 0.03
    assert len(set(first)) == len(first)
    assert generator(1, "x", 5).random(3).tolist() == generator(1, "x", 5).random(3).tolist()


# --- locks


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


@pytest.mark.parametrize(
    ("gpus", "offered", "a_member", "told"),
    [
        ([], 0, 2, "No GPU found: networks train on the CPU, with 8 core(s).\n"),
        (["0", "1"], 1, 2, "runtime.gpus_per_member is 2 and --resources gpu=1 offers 1: each member trains on 1.\n"),
        (["0", "1"], 2, 2, ""),
        (["0"], 0, 1, ""),
    ],
)
def test_the_first_words_of_a_run_say_what_networks_train_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gpus: list[str], offered: int, a_member: int, told: str
) -> None:
    begin_run(str(tmp_path), gpus, 8, offered, a_member)
    assert capsys.readouterr().err == told


def test_f49_a_second_run_is_refused_in_one_line_and_the_first_unharmed(tmp_path: Path) -> None:
    child = python(HOLD, tmp_path / "locks/run.lock")
    assert child.stdout.readline() == "held\n"
    with pytest.raises(UserError) as refusal:
        run_lock(tmp_path)
    child.kill()
    child.wait()
    (told,) = refusal.value.faults
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
    timer = threading.Timer(0.1, held.close)
    timer.start()
    with folder_lock(tmp_path, told.append):
        entered = True
        assert try_lock(tmp_path / "lock") is None
    timer.join()
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


# --- the console

JOB = """
    import ctypes, os, subprocess, sys, time
    from foldvote.runtime.job_log import job, log
    from foldvote.errors import Interrupted, UserError
    print("before the job", flush=True)
    with job(sys.argv[1]):
        print("printed")
        print("to standard error", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo of a child; echo of its error >&2"], check=True)
        libc = ctypes.CDLL(None)
        libc.puts(b"of a C library")
        libc.fflush(None)
        os.write(2, b"raw bytes\\n")
        log("a line for the user 가")
        what = sys.argv[2]
        if what == "refusal":
            raise UserError("a.csv, line 3: is wrong; mend it", "b.csv: is missing; add it")
        if what == "undecodable":
            raise UserError("the file \\udcff.jpg is bad")
        if what == "interrupted":
            raise Interrupted("stopped; run it again")
        if what == "failure":
            {}["a key"]
        if what == "wait":
            time.sleep(60)
    print("after")
"""


def run_job(log: Path, what: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, console and log of a job."""
    child = python(JOB, log, what, **environment)
    out, err = child.communicate()
    assert out == "before the job\n"
    return child.returncode, err, log.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize(
    ("what", "code", "console_lines"),
    [
        ("nothing", 0, []),
        ("refusal", 1, ["error: a.csv, line 3: is wrong; mend it", "error: b.csv: is missing; add it"]),
        ("undecodable", 1, ["error: the file \\udcff.jpg is bad"]),
        ("interrupted", INTERRUPTED, ["stopped; run it again"]),
        ("failure", 1, ["error: unexpected failure, an error in foldvote itself; the traceback is in LOG"]),
    ],
)
def test_a_jobs_output_goes_to_its_log_and_lines_for_the_user_to_the_console(
    tmp_path: Path, what: str, code: int, console_lines: list[str]
) -> None:
    log = tmp_path / "logs/deep/job.log"
    returned, shown, logged = run_job(log, what)
    assert returned == code
    expected = ["a line for the user 가", *(line.replace("LOG", str(log)) for line in console_lines)]
    assert shown.splitlines() == expected
    for line in (
        "printed",
        "to standard error",
        "of a child",
        "of its error",
        "of a C library",
        "raw bytes",
        *expected,
    ):
        assert logged.count(f"{line}\n") == 1, line
    assert ("Traceback" in logged) == (what == "failure")
    assert ("KeyError" in logged) == (what == "failure")


def test_f46_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    child = python(JOB, tmp_path / "file/job.log", "nothing")
    _, shown = child.communicate()
    assert child.returncode == 1
    assert shown == f"error: {tmp_path}/file/job.log: cannot be written (File exists); choose another `results`\n"


def test_f50_a_job_ends_when_its_snakemake_was_killed(tmp_path: Path) -> None:
    master = python("import time; time.sleep(600)")
    child = python(JOB, tmp_path / "job.log", "wait", FOLDVOTE_MASTER=str(master.pid))
    assert child.stderr.readline() == "a line for the user 가\n"
    assert child.poll() is None
    master.kill()
    master.wait()
    assert child.wait(60) == -signal.SIGTERM


def test_progress_passes_everything_on_and_is_quiet_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(track(iter("abc"), "reading letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(job_log, "PLAIN_SECONDS", -1)
    assert list(track("abc", "reading letters", 1234)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[1] == "reading letters: 1 of 1,234"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_a_bar_that_lines_do_not_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(job_log, "_console", Terminal())
    for index, item in enumerate(track(range(5), "counting", 5)):
        assert item == index
        log(f"[bold]line {index}")
    shown = job_log._console.getvalue()
    assert "counting" in shown and "[bold]line 4" in shown
    assert job_log._live is None
    bar = track(range(5), "counting", 5)
    next(bar)
    bar.close()
    assert job_log._live is None


# --- worker processes


def tripled(offset: int, number: int) -> int:
    return 3 * number + offset


def refuses(number: int) -> int:
    if number == 17:
        raise UserError("first fault", "second fault")
    return number


def dies(number: int) -> int:
    if number == 17:
        os._exit(9)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_whatever_the_workers(workers: int) -> None:
    assert list(map_processes(partial(tripled, 1), range(450), workers, "tripling")) == [3 * n + 1 for n in range(450)]
    assert list(map_processes(partial(tripled, 1), [], workers, "tripling")) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_workers_refusal_arrives_with_all_its_faults(workers: int) -> None:
    with pytest.raises(UserError) as refusal:
        list(map_processes(refuses, range(40), workers, "reading", worth=20))
    assert refusal.value.faults == ("first fault", "second fault")


def test_f44_a_worker_that_dies_is_told_and_nothing_hangs() -> None:
    with pytest.raises(UserError, match="reading: a worker process was killed, for want of memory perhaps"):
        list(map_processes(dies, range(40), 2, "reading", worth=20))


def test_a_caller_that_stops_early_stops_the_workers() -> None:
    results: Iterator[int] = map_processes(partial(tripled, 0), range(1000), 2, "tripling")
    assert next(results) == 0
    results.close()
    assert not [child for child in multiprocessing.active_children() if child.is_alive() and "Process" in child.name]
