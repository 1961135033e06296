"""One network instead of K, through the real command: a student, and the average of all members' weights."""

import json
from pathlib import Path

import pandas as pd

from foldvote.splits.folds import fold_rows
from support.snakemake_run import CONFIG, planned, snakemake, write_config

TINY = CONFIG["models"]["tiny"] | {"epochs": 1, "warmup_epochs": 0}
STUDENT = {"base": "tiny", "distill": {"models": ["tiny"], "test_images": True}}
WITH_RESERVE = {"k": 2, "stratify": ["gender"], "reserve": 0.3}


def test_a_student_is_taught_by_its_own_fold_and_compared_with_the_vote(tmp_path: Path) -> None:
    models = {"tiny": TINY, "student": STUDENT}
    write_config(tmp_path, models=models)  # without a reserve
    assert "average_weights: needs folds.reserve" in snakemake(tmp_path, "-n", "average_weights", code=None)
    write_config(tmp_path, models=models, folds=WITH_RESERVE)
    jobs = planned(tmp_path, "all", "average_weights")
    assert (jobs["train"], jobs["teach"], jobs["students"], jobs["average"]) == (4, 2, 1, 2)
    snakemake(tmp_path, "all", "average_weights")
    results = tmp_path / "results"
    folds = pd.read_parquet(results / "folds/folds.parquet")
    for fold in (0, 1):
        taught = pd.read_parquet(results / f"teach/model=tiny/fold={fold}/predictions.parquet")
        assert set(taught["image_id"]) == set(fold_rows(folds, fold)[0]["image_id"])
        about = json.loads((results / f"train/model=student/fold={fold}/model.json").read_text())
        teacher = json.loads((results / f"train/model=tiny/fold={fold}/model.json").read_text())
        assert about["distill"]["weights_sha256"] == [teacher["sha256"]] == about["pseudo"]["weights_sha256"]
        log = (results / f"logs/train/model=student/fold={fold}.log").read_text(encoding="utf-8")
        assert f"(14 of them test images), taught by tiny fold {fold}, " in log
    table = pd.read_csv(results / "ensemble/students.csv")
    rows = list(table[["scored_on", "predicts", "networks"]].itertuples(index=False, name=None))
    sides = ("student", "teachers")
    assert rows[:4] == [("reserve", side, number) for side in sides for number in (1, 2)]
    assert rows[4:] == [("oof", side, 1) for side in sides]
    board = pd.read_csv(results / "leaderboard.csv")
    assert {"tiny", "student"} <= set(board.loc[board["kind"] == "model", "model"])
    for model in ("tiny", "student"):
        scores = json.loads((results / f"average/model={model}/scores.json").read_text())
        assert set(scores["scores"]) == {"one member", "uniform", "greedy", "vote"}
        assert (results / f"average/model={model}/model.safetensors").exists()
    assert planned(tmp_path, "all", "average_weights") == {}
    # Another teacher is a reason to train its student anew, another student none to train the teacher.
    write_config(
        tmp_path, models={"tiny": TINY | {"lr": 0.002}, "student": STUDENT | {"lr": 0.001}}, folds=WITH_RESERVE
    )
    assert planned(tmp_path)["train"] == 4
    other = {"base": "tiny", "distill": {"models": ["tiny"], "temperature": 4}}
    write_config(tmp_path, models={"tiny": TINY, "student": other}, folds=WITH_RESERVE)
    jobs = planned(tmp_path)
    assert jobs["train"] == 2 and "teach" not in jobs
