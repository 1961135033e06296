"""The workflow killed, run twice at once, or with a fold that fails: it goes on and ends with the same bytes."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from foldvote.io.files import sha256_file
from foldvote.runtime.locks import folder_lock
from support.snakemake_run import (
    CONFIG,
    MEMBER,
    PREDICTIONS,
    command,
    digests,
    jobs_that_ran,
    kill_group,
    snakemake,
    wait_for,
    write_config,
)


def test_one_fold_again_gives_the_same_bytes_and_touches_nothing_else(copy: Path) -> None:
    before = digests(copy)
    other = (copy / MEMBER.format(0)).stat().st_mtime_ns
    printed = snakemake(copy, "-R", MEMBER.format(1))
    assert jobs_that_ran(printed) == {"train": 1, "predict_member": 1, "ensemble": 1, "review": 1, "submission": 1}
    assert digests(copy) == before
    assert (copy / MEMBER.format(0)).stat().st_mtime_ns == other
    assert "Nothing to be done" in snakemake(copy)


def test_f36_f50_snakemake_and_its_job_killed_in_mid_training_and_run_again_gives_the_same_bytes(copy: Path) -> None:
    member = MEMBER.format(0)
    before = sha256_file(copy / member)
    resume = copy / "results/resume/model=tiny/fold=0"
    run = subprocess.Popen(command("-R", member), cwd=copy, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(resume.glob("step-*.ckpt"))) == 2, run)
    kill_group(run)
    assert list(resume.glob("step-*.ckpt"))
    printed = snakemake(copy, member)
    assert "goes on at" in printed
    assert sha256_file(copy / member) == before


def test_f50_an_orphan_of_a_killed_snakemake_stops_and_the_next_run_goes_on(copy: Path) -> None:
    longer = {"tiny": CONFIG["models"]["tiny"] | {"epochs": 40}}
    write_config(copy, models=longer)
    resume = copy / "results/resume/model=tiny/fold=0"
    run = subprocess.Popen(command(MEMBER.format(0)), cwd=copy, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(resume.glob("step-*.ckpt"))) == 2, run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    write_config(copy, models=longer, runtime={"workers": 0})  # without a checkpoint after each step
    printed = snakemake(copy, MEMBER.format(0))
    log = (copy / "results/logs/train/model=tiny/fold=0.log").read_text()
    assert "goes on at" in log, printed


def test_f50_a_job_that_a_cluster_started_watches_its_own_snakemake_and_no_process_of_another_machine(
    copy: Path, tmp_path: Path
) -> None:
    models = {"tiny": CONFIG["models"]["tiny"] | {"epochs": 400}}
    write_config(copy, models=models, runtime=CONFIG["runtime"] | {"state_dir": str(tmp_path / "state")})
    resume = tmp_path / "state/resume/model=tiny/fold=0"
    stranger = subprocess.Popen(["sleep", "600"])  # has the number that Snakemake had on the machine it was typed on
    alone = ["--mode", "remote", "--target-jobs", "train:model=tiny,fold=0", "--allowed-rules", "train", "--force"]
    inner = subprocess.Popen(
        command(*alone, "--nolock", "--ignore-incomplete"),
        cwd=copy,
        env=os.environ | {"FOLDVOTE_MASTER": str(stranger.pid)},
        stdout=(copy / "inner.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    wait_for(lambda: len(list(resume.glob("step-*.ckpt"))) == 2, inner)
    stranger.kill()
    stranger.wait()
    before = max(resume.glob("step-*.ckpt"))
    time.sleep(2)  # a job looks twice a second
    wait_for(lambda: max(resume.glob("step-*.ckpt")) > before, inner)
    inner.kill()
    inner.wait()
    printed = (copy / "inner.log").read_text()
    assert "threads:" not in printed.partition("rule train:")[2], "two machines would count its threads differently"
    with folder_lock(resume, lambda _: None, wait_seconds=60):
        assert "stopped as asked, state saved" in (copy / "results/logs/train/model=tiny/fold=0.log").read_text()


def test_f49_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(copy: Path) -> None:
    before = digests(copy)
    first = subprocess.Popen(
        command("-R", MEMBER.format(0)), cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for((copy / "results/locks/run.lock").exists, first)
    wait_for(lambda: list((copy / "results/resume/model=tiny/fold=0").glob("*.ckpt")), first)
    second = snakemake(copy, "-R", MEMBER.format(1), code=None)
    assert "another run works here (process" in second
    printed, _ = first.communicate(timeout=300)
    assert first.returncode == 0, printed
    assert digests(copy) == before


def test_f52_a_fold_that_fails_lets_the_others_go_on_and_is_named(copy: Path) -> None:
    member = copy / MEMBER.format(0)
    content = bytearray(member.read_bytes())
    content[-1] ^= 1
    member.write_bytes(content)
    shutil.rmtree(copy / "results/oof")
    printed = snakemake(copy, "--keep-going", "results/leaderboard.csv", code=None)
    assert "is not the file that was trained" in printed
    assert not (copy / PREDICTIONS[0]).exists()
    assert (copy / PREDICTIONS[1]).is_file()
    assert "Error in rule predict_member" in printed
