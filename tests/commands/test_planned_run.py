"""When a run plans before it trains, and what it refuses."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from foldvote.commands.planned_run import MODULE, plan_before_training, planned_configuration
from foldvote.config.experiment import Config, check_config
from foldvote.config.run_plan import PlannedModel, plan_identity, plan_path

COMMAND = ["--cores", "2", "--configfile", "my.yaml"]


def asked(folder: Path, max_hours: float | None = 1) -> Config:
    models = {name: {"net": "resnet18", "epochs": 10} for name in "ab"}
    runtime = {"max_hours": max_hours}
    return check_config(
        {"results": str(folder), "data": {"layout": "demo"}, "models": models, "runtime": runtime, "tune": tune()}
    )


def tune() -> dict[str, object]:
    return {"model": "b", "space": {"lr": {"float": [1e-4, 1e-2], "log": True}}, "trials": 2}


def write(config: Config) -> None:
    models = {"a": PlannedModel(5, 10, 1.5), "b": PlannedModel(0, 10, 0.0)}
    content = {"made_for": plan_identity(config), "models": {name: asdict(one) for name, one in models.items()}}
    plan_path(config).write_text(json.dumps(content))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands of other processes, none of which is run; the first one writes a plan, unless it is for nothing."""
    made: list[list[str]] = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        made.append(command)
        if "--nothing" not in command:
            write(asked(tmp_path))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "execv", lambda _, command: made.append(command))
    return made


def test_a_run_that_trains_without_a_plan_makes_it_and_begins_anew(tmp_path: Path, calls: list[list[str]]) -> None:
    plan_before_training(asked(tmp_path), {"train", "oof"}, COMMAND, True)
    assert calls == [[sys.executable, "-m", MODULE, *COMMAND], [sys.executable, "-m", "snakemake", *COMMAND]]


def test_no_other_run_does(tmp_path: Path, calls: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    plan_before_training(asked(tmp_path, None), {"train"}, COMMAND, True)
    plan_before_training(asked(tmp_path), {"manifest", "plan"}, COMMAND, True)
    assert capsys.readouterr().err == ""
    write(asked(tmp_path))
    plan_before_training(asked(tmp_path), {"train"}, COMMAND, True)
    path = plan_path(asked(tmp_path))
    assert capsys.readouterr().err == f"{path}: a: 5 of 10 epochs\n{path}: b: left out\n"
    assert calls == []


def test_a_plan_that_is_not_there_afterwards_is_no_endless_loop(tmp_path: Path, calls: list[list[str]]) -> None:
    with pytest.raises(SystemExit, match=r"plan\.json: is not there"):
        plan_before_training(asked(tmp_path), {"train"}, [*COMMAND, "--nothing"], True)
    assert len(calls) == 1


def test_a_run_on_other_machines_is_refused(tmp_path: Path, calls: list[list[str]]) -> None:
    with pytest.raises(SystemExit, match=r"runtime\.max_hours: plans runs on one machine"):
        plan_before_training(asked(tmp_path), {"train"}, COMMAND, False)
    assert calls == []


def test_the_configuration_is_what_the_plan_leaves(tmp_path: Path) -> None:
    config = asked(tmp_path)
    assert planned_configuration(config) == (config, None)
    write(config)
    left, plan = planned_configuration(config)
    assert {name: one.epochs for name, one in left.models.items()} == {"a": 5}
    assert left.tune is None  # its model is left out
    assert plan == {
        "a": {"epochs": 5, "asked_epochs": 10, "minutes": 1.5},
        "b": {"epochs": 0, "asked_epochs": 10, "minutes": 0.0},
    }


def test_a_damaged_plan_is_one_line(tmp_path: Path) -> None:
    plan_path(asked(tmp_path)).write_text("[]")
    with pytest.raises(SystemExit, match=r"plan\.json: is no plan of foldvote; delete it"):
        planned_configuration(asked(tmp_path))
