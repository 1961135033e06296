"""A search as users run it: the real `snakemake` command, two workers, killed, continued, and its recipe used."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from foldvote.config.experiment import load_config
from support.snakemake_run import command, jobs_that_ran, kill_group, planned, snakemake, wait_for, write_config

SPACE = {"lr": {"float": [1e-4, 1e-1], "log": True}, "size": {"choice": ["32x24", "40x32"]}}
TUNE = {"trials": 3, "workers": 2, "folds": [0], "pruner": "none", "space": SPACE}
RUNTIME = {"workers": 0}


def trials_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "results/tune/trials.parquet")


def test_f36_f50_a_search_killed_in_mid_trial_goes_on_and_its_recipe_is_used(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(copy, runtime=RUNTIME, tune=TUNE)
    states = copy / "results/tune/resume"
    run = subprocess.Popen(command("tune"), cwd=copy, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(states.rglob("*.ckpt")), run)
    kill_group(run)  # Snakemake and both workers
    printed = snakemake(copy, "tune")
    assert jobs_that_ran(printed) == {"tune_worker": 2, "tune": 1}
    trials = trials_of(copy)
    counts = trials["state"].value_counts()
    assert counts["complete"] == 3 and counts["interrupted"] >= 1 and set(counts.index) == {"complete", "interrupted"}
    lost, again = trials[trials["state"] == "interrupted"], trials.set_index("repeats")
    for number, rate in zip(lost["number"], lost["param_lr"], strict=True):
        assert pd.isna(rate) or again.loc[number, "param_lr"] == rate
    assert "trials of tiny-" in printed and "3 complete" in printed
    assert "lost its worker" in printed
    assert not list(states.rglob("*.ckpt"))

    # More trials go on in the same study; a report would show the search and begin none.
    write_config(copy, runtime=RUNTIME, tune=TUNE | {"trials": 5, "workers": 1})
    assert planned(copy, "tune") == {"tune_worker": 1, "tune": 1}
    assert "tune_worker" not in planned(copy, "report")

    # The best recipe, by its name, in another configuration.
    write_config(copy, include=["results/tune/best.yaml"], models={"tuned": {"base": "tiny-tuned", "epochs": 1}})
    monkeypatch.chdir(copy)
    tuned, best = load_config("config.yaml").models["tuned"], trials["score"].idxmax()
    assert (tuned.lr, tuned.size) == (trials["param_lr"][best], trials["param_size"][best])
    assert (tuned.epoch, tuned.epochs) == ("last", 1)


def test_a_search_without_its_section_or_with_a_wrong_one_is_refused_in_a_line(tmp_path: Path) -> None:
    write_config(tmp_path)
    assert "config.yaml: has no section `tune`" in snakemake(tmp_path, "tune", code=None)
    space = "tune={space: {lrr: {float: [0, 1]}}}"
    printed = snakemake(tmp_path, "tune", "--config", space, code=None)
    assert "config.yaml: tune.space: lrr: is no key of a recipe" in printed and "Traceback" not in printed
    assert planned(tmp_path, "tune", "--config", "tune={space: {lr: {float: [1e-4, 1]}}}")["tune_worker"] == 1
