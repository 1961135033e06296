"""Job logs: everything in the log file, the lines for the user on the console, progress."""

import io
import signal
from pathlib import Path

import pytest

from foldvote.errors import INTERRUPTED
from foldvote.runtime import job_log
from foldvote.runtime.job_log import log, track
from support.processes import python

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
    assert job_log._progress is None
    bar = track(range(5), "counting", 5)
    next(bar)
    bar.close()
    assert job_log._progress is None
