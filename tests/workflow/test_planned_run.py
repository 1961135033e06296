"""A run that may take only so long, through the real command: it plans, trains what fits, and ends with all scores."""

import json
from pathlib import Path

import pandas as pd

from foldvote.io.parquet import read_table
from support.snakemake_run import CONFIG, MEMBER, jobs_that_ran, planned, snakemake, write_config

TINY = CONFIG["models"]["tiny"]
# Steps of two images: 10,000 epochs would take a quarter of an hour and more wherever.
VAST = TINY | {"batch_size": 2, "epochs": 10_000}
RUNTIME = CONFIG["runtime"] | {"max_hours": 0.15, "least_epochs": 1}
SIDECAR = MEMBER.replace("model.safetensors", "model.json")


def test_what_fits_is_planned_before_training_and_trained_and_marked(tmp_path: Path) -> None:
    write_config(tmp_path, models={"tiny": TINY, "vast": VAST}, runtime=RUNTIME)
    assert planned(tmp_path)["train"] == 4 and not (tmp_path / "results/plan.json").exists()

    printed = snakemake(tmp_path)
    assert printed.index("plan: tiny: 2 of 2 epochs, 2 members") < printed.index("plan: vast: left out")
    assert printed.index("plan: vast: left out") < printed.index("rule train:")
    assert jobs_that_ran(printed)["train"] == 2 and jobs_that_ran(printed)["plan"] == 1
    board = pd.read_csv(tmp_path / "results/leaderboard.csv", dtype="str").fillna("")
    models = board[board["kind"].isin(["model", "member"])]
    assert models["model"].tolist() == ["tiny"] * 3 and models["plan"].tolist() == ["2 of 2 epochs"] * 3
    assert "runtime.max_hours: vast: left out" in printed
    folds = read_table(tmp_path / "results/folds/folds.parquet")
    assert len(read_table(tmp_path / "results/ensemble/oof.parquet")) == len(folds)
    assert (tmp_path / "results/submission.csv").is_file()
    sidecar = json.loads((tmp_path / SIDECAR.format(0)).read_text())
    assert sidecar["plan"] == {"asked_epochs": 2, "trained_epochs": 2}

    made = (tmp_path / "results/plan.json").read_bytes()
    assert planned(tmp_path) == {}
    assert "Nothing to be done" in snakemake(tmp_path)
    assert (tmp_path / "results/plan.json").read_bytes() == made

    shorter = json.loads(made)
    shorter["models"]["tiny"]["epochs"] = 1
    (tmp_path / "results/plan.json").write_text(json.dumps(shorter))
    assert planned(tmp_path)["train"] == 2
    snakemake(tmp_path, MEMBER.format(1))
    sidecar = json.loads((tmp_path / SIDECAR.format(1)).read_text())
    assert (sidecar["recipe"]["epochs"], sidecar["recipe"]["warmup_epochs"]) == (1, 0.25)
    assert sidecar["plan"] == {"asked_epochs": 2, "trained_epochs": 1}

    (tmp_path / "results/plan.json").unlink()
    assert planned(tmp_path)["train"] == 3  # the one that was made shorter, and those of the other model
