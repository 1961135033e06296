"""One answer per group, from raw data to the submission: the real `snakemake` command on tiny drawn patients."""

import json
from pathlib import Path

import pandas as pd
import pytest

from support.data_folders import put_csv, table_folder
from support.snakemake_run import CONFIG, jobs_that_ran, planned, snakemake, write_config

HEADER = ("path", "patient", "grade", "use")
TRAIN = [
    (f"train/{patient}-{shot}.jpg", f"p{patient:02d}", ("low", "high")[patient % 2], "train")
    for patient in range(16)
    for shot in range(1 + patient % 3)
]
TEST = [(f"test/{number}.jpg", ("t7", "t10", "t7", "t2", "t10", "t7")[number], "", "test") for number in range(6)]
OF_GROUPS = {
    "data": {"layout": "table", "table": "table.csv", "group": "patient", "label": "grade", "split": "use"},
    "data_root": "data",
    "answers": None,
    "folds": {"method": "holdout", "fraction": 0.4, "reserve": 0.25},
    "models": {"tiny": CONFIG["models"]["tiny"] | {"epochs": 1}},
    "vote": {"kinds": ["mean"], "draws": 100},
    "submission": {"unit": "group", "sample": "sample.csv", "id_column": "patient", "answer": "probabilities"},
}


def of_groups(folder: Path, rows: list[tuple[str, ...]], **changes: object) -> None:
    folder.mkdir(exist_ok=True)
    table_folder(folder / "data", rows, HEADER)
    put_csv(folder / "data/sample.csv", ["patient", "high", "low"], [(name, 0, 0) for name in ("t2", "t7", "t10")])
    write_config(folder, **OF_GROUPS | changes)


def test_a_table_of_patients_runs_to_a_submission_of_patients(tmp_path: Path) -> None:
    of_groups(tmp_path, TRAIN + TEST)
    printed = snakemake(tmp_path)
    assert jobs_that_ran(printed)["group_answers"] == 1
    assert "one answer per group, by " in printed
    results = tmp_path / "results"
    groups = pd.read_parquet(results / "ensemble/groups.parquet").set_index("group")
    assert groups["images"].to_dict() == {"t7": 3, "t10": 2, "t2": 1}
    images = pd.read_parquet(results / "ensemble/test.parquet").set_index("image_id")
    assert groups.loc["t2", "p_high"] == images.loc["test/3.jpg", "p_high"]
    written = pd.read_csv(results / "submission.csv").set_index("patient")
    assert written.index.tolist() == ["t2", "t7", "t10"]
    assert written.loc["t7", "high"] == pytest.approx(groups.loc["t7", "p_high"], abs=1e-9)
    scores = json.loads((results / "ensemble/group_scores.json").read_text())
    reserve = pd.read_parquet(results / "ensemble/reserve.parquet")
    assert scores["groups"] == reserve["profile"].nunique() > 1
    assert (scores["on"], scores["predicted_by"]) == ("reserve", "all members")
    assert planned(tmp_path) == {}

    row = "results/submission/model=tiny/fold=0.csv"
    jobs = jobs_that_ran(snakemake(tmp_path, row))
    assert jobs == {"row": 1, "row_groups": 1, "row_submission": 1}
    assert pd.read_csv(tmp_path / row)["patient"].tolist() == ["t2", "t7", "t10"]

    form = OF_GROUPS["submission"]
    write_config(tmp_path, **OF_GROUPS | {"submission": form | {"pooling": "maximum"}})
    assert planned(tmp_path) == {"group_answers": 1, "submission": 1}
    write_config(tmp_path, **OF_GROUPS | {"submission": {"id_column": "patient", "answer": "probabilities"}})
    assert planned(tmp_path) == {"submission": 1}


def test_f_groups_of_several_classes_and_test_images_without_one_stop_the_run_before_its_first_job(
    tmp_path: Path,
) -> None:
    of_groups(tmp_path, [*TRAIN, ("train/x.jpg", "p03", "low", "train"), *TEST, ("test/y.jpg", "", "", "test")])
    printed = snakemake(tmp_path, code=None)
    assert "1 groups have different classes: p03 (high, low)" in printed
    assert "1 of 7 test images have no group: test/y.jpg" in printed
    assert not (tmp_path / "results/data").exists()
    assert "rule manifest" not in printed
