"""Networks of all groups beside a finished run, as users make them: the real `snakemake` command on the tiny demo."""

from pathlib import Path

import pandas as pd

from foldvote.io.files import read_json, sha256_file
from foldvote.io.parquet import read_record
from support.snakemake_run import CONFIG, MEMBER, jobs_that_ran, planned, snakemake, write_config

SETTINGS = {"data": CONFIG["data"] | {"profiles": 16}, "folds": {"method": "holdout", "fraction": 0.25}}


def test_a_refit_trains_on_all_groups_joins_the_vote_and_is_forecast(tmp_path: Path) -> None:
    write_config(tmp_path, **SETTINGS)
    assert "config.yaml: has no section `refit`" in snakemake(tmp_path, "refit", code=None)
    write_config(tmp_path, **SETTINGS, refit={"models": ["tyni"]})
    assert "refit.models: no model 'tyni'; did you mean 'tiny'?" in snakemake(tmp_path, "refit", code=None)
    write_config(tmp_path, **SETTINGS, refit={"seeds": 2, "curve": [0.5, 0.7], "curve_folds": [0]})
    assert not [rule for rule in planned(tmp_path) if rule.startswith(("refit", "curve"))]
    printed = snakemake(tmp_path, "refit")
    ran = jobs_that_ran(printed)
    wanted = {"train": 1, "refit_split": 1, "refit_recipe": 1, "refit_train": 2, "refit_test": 2, "refit_vote": 1}
    wanted |= {"curve_split": 2, "curve_train": 2, "curve_oof": 2, "refit_forecast": 1, "refit_submission": 2}
    assert {rule: ran[rule] for rule in wanted} == wanted
    results = tmp_path / "results"
    folds = pd.read_parquet(results / "folds/folds.parquet")
    groups, of_fold = folds["group"].nunique(), folds[folds["fold"] == 0].nunique()
    assert f"refit on all {groups} groups, 2 networks of each model: macro-F1 " in printed
    assert "a forecast from the learning curve" in printed
    sidecar = read_json(results / "refit/train/model=tiny/fold=1/model.json")
    assert sidecar["validation_images"] == 0 and not [name for name in sidecar if name.startswith("val_")]
    weights = [results / f"refit/train/model=tiny/fold={number}/model.safetensors" for number in (0, 1)]
    assert len({sha256_file(path) for path in [*weights, tmp_path / MEMBER.format(0)]}) == 3
    first, both = (pd.read_csv(results / f"submission/{name}.csv", dtype=str) for name in ("refit", "vote+refit"))
    votes = pd.read_parquet(results / "ensemble/test.parquet")
    assert first["ImageID"].tolist() == both["ImageID"].tolist()
    assert sorted(first["ImageID"]) == sorted(votes["image_id"])
    assert set(read_record(results / "refit/vote.parquet")["refit"]["tiny"]) == {"0", "1"}
    scores = read_json(results / "refit/test_scores.json")
    assert set(scores["rows"]) == {"vote", "refit", "vote+refit"}
    forecast = read_json(results / "refit/forecast.json")
    assert forecast["groups"] == {"of_a_fold": groups - of_fold["group"], "all": groups, "scored": of_fold["group"]}
    assert forecast["shares"] == [0.5, 0.7, 1.0]
    assert not list((results / "refit/resume").rglob("*.ckpt"))
    assert planned(tmp_path, "refit") == {}
