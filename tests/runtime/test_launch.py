"""Processes that are started, stopped and ended as one, whatever befalls one of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from foldvote.errors import Interrupted, UserError
from foldvote.runtime import launch
from foldvote.runtime.job_log import log
from foldvote.runtime.launch import run_together
from foldvote.runtime.signals import stop_on_signal

ROOT = Path(__file__).resolve().parents[2]


def wait_for(path: Path) -> str:
    """The text of a file as soon as there is one."""
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
    return path.read_text()


def note(folder: Path, number: int) -> None:
    (folder / f"{number}").write_text(str(os.getpid()))


def answers(folder: Path, number: int) -> None:
    note(folder, number)
    log(f"it is {number}")


def refuses(folder: Path, number: int) -> None:
    """One refuses once the other has begun to wait for it, for ever."""
    note(folder, number)
    if number == 0:
        time.sleep(600)
    wait_for(folder / "0")
    raise UserError("a.csv: is wrong; mend it", "b.csv: is missing; add it")


def fails(folder: Path, number: int) -> None:
    note(folder, number)
    if number == 1:
        {}["a key"]


def stops(folder: Path, number: int) -> None:
    """Both stop as asked, the first after a longer tidying up than the others wait for one that fails."""
    with stop_on_signal() as stopping:
        note(folder, number)
        stopping.wait(60)
        if number == 0:
            time.sleep(0.5)
        (folder / f"{number}.saved").write_text("saved")
    raise Interrupted(f"number {number} has saved")


def waits(folder: Path, number: int) -> None:
    note(folder, number)
    time.sleep(600)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)


def gone(folder: Path, processes: int = 2) -> bool:
    """Whether all the processes have ended that left their ids."""
    return not any(is_alive(int((folder / str(number)).read_text())) for number in range(processes))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def meanwhile(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_all_do_their_part_and_the_first_alone_speaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_together(partial(answers, tmp_path), 3, "answering")
    pids = [(tmp_path / str(number)).read_text() for number in range(3)]
    assert len({*pids, str(os.getpid())}) == 4
    told = capfd.readouterr().err
    # Looked for in the whole text: pytest's own standard error writes a line and its end apart, with room between them.
    lines = [f"answering: processes {', '.join(pids)}", "it is 0", "[process 2] it is 1", "[process 3] it is 2"]
    assert [told.count(line) for line in lines] == [1, 1, 1, 1], told
    assert told.count("it is ") == 3 and "[process 1]" not in told


def test_a_refusal_ends_all_and_arrives_once_with_all_its_faults(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        run_together(partial(refuses, tmp_path), 2, "refusing")
    assert error.value.faults == ("a.csv: is wrong; mend it", "b.csv: is missing; add it")
    assert gone(tmp_path)


def test_an_error_is_printed_where_it_happened_and_ends_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="failing: process 2 of 2 failed"):
        run_together(partial(fails, tmp_path), 2, "failing")
    assert capfd.readouterr().err.count("KeyError: 'a key'") == 1


def test_f44_a_process_that_is_killed_ends_the_others_in_one_line(tmp_path: Path) -> None:
    killer = meanwhile(lambda: os.kill(int(wait_for(tmp_path / "1")), signal.SIGKILL))
    with pytest.raises(
        UserError, match="waiting: process 2 of 2 was ended by SIGKILL, and the others with it"
    ) as error:
        run_together(partial(waits, tmp_path), 2, "waiting")
    killer.join()
    assert len(error.value.faults) == 1
    assert not (tmp_path / "0").exists() or gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_f38_a_signal_reaches_all_and_each_has_the_time_it_needs(tmp_path: Path, number: signal.Signals) -> None:
    def ask() -> None:
        for name in ("0", "1"):
            wait_for(tmp_path / name)
        os.kill(os.getpid(), number)

    asker = meanwhile(ask)
    with pytest.raises(Interrupted, match="number 0 has saved"):
        run_together(partial(stops, tmp_path), 2, "stopping")
    asker.join()
    assert (tmp_path / "0.saved").exists() and (tmp_path / "1.saved").exists()


def test_f50_none_outlives_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "from functools import partial; from pathlib import Path; from foldvote.runtime.launch import run_together\n"
        "from runtime.test_launch import waits\n"
        f"run_together(partial(waits, Path({str(tmp_path)!r})), 2, 'waiting')"
    )
    path = os.pathsep.join([str(ROOT / "workflow/scripts"), str(ROOT / "tests")])
    starter = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    for number in ("0", "1"):
        wait_for(tmp_path / number)
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 20
    while not gone(tmp_path):
        assert time.monotonic() < deadline, "a process goes on without the one that started it"
        time.sleep(0.05)
