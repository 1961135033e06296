"""External images and weights of images, from the table to the submission."""

import shutil
from pathlib import Path

import pandas as pd

from foldvote.io.files import read_json
from support.data_folders import put_csv, table_folder
from support.snakemake_run import CONFIG, planned, snakemake, write_config

HEADER = ("path", "group", "label", "split", "role", "weight")


def test_external_images_and_weights_from_the_table_to_the_submission(tmp_path: Path) -> None:
    rows = [
        (f"p{person:02d}_{shot}.jpg", f"p{person:02d}", "xy"[person % 2], "train", "", "2" if shot else "")
        for person in range(12)
        for shot in range(2)
    ]
    rows += [
        (f"web{number}.jpg", f"web{number}", "xy"[number % 2], "train", "train_only", "0.5") for number in range(3)
    ]
    rows += [("again.jpg", "p03", "y", "train", "train_only", ""), ("copy.jpg", "web9", "x", "train", "train_only", "")]
    rows += [(f"t{number}.jpg", "", "", "test", "", "") for number in range(3)]
    table_folder(tmp_path, rows, HEADER)
    shutil.copy(tmp_path / "p04_1.jpg", tmp_path / "copy.jpg")  # the same picture of another group
    data = {"layout": "table", "table": "table.csv", "split": "split", "role": "role", "weight": "weight"}
    write_config(
        tmp_path,
        data=data,
        data_root=".",
        answers=None,
        folds={"k": 2, "reserve": 0.2},
        images={"min_side": 8},
        models={"tiny": CONFIG["models"]["tiny"] | {"epochs": 1}},
    )
    snakemake(tmp_path, "all", "data_check")
    results = tmp_path / "results"
    folds = pd.read_parquet(results / "folds/folds.parquet")
    outside = folds[folds["fold"] == -3]
    assert set(outside["image_id"]) == {"web0.jpg", "web1.jpg", "web2.jpg", "again.jpg", "copy.jpg"}
    assert outside.set_index("image_id")["sample_weight"].to_dict() == {
        **{f"web{number}.jpg": 0.5 for number in range(3)},
        **{"again.jpg": 1.0, "copy.jpg": 1.0},
    }
    proof = read_json(results / "folds/certificate.json")
    assert proof["train_only"]["images"] == 5 and proof["train_only"]["shared_groups"] == 2
    own_fold = folds[folds["fold"] != -3].drop_duplicates("group").set_index("group")["fold"]
    lost = [own_fold["p03"], own_fold["p04"]]
    expected = [lost.count(fold) + lost.count(-2) for fold in (0, 1)]
    assert [part["images"] for part in proof["train_only"]["kept_out"]] == expected
    predicted = pd.read_parquet(results / "ensemble/oof.parquet")["image_id"]
    kept_out = pd.read_parquet(results / "ensemble/reserve.parquet")["image_id"]
    assert set(predicted) | set(kept_out) == {str(row[0]) for row in rows[:24]}
    assert len(pd.read_csv(results / "submission.csv")) == 3
    assert "5 images of 5 groups only trained on" in (results / "data_check.html").read_text()
    assert planned(tmp_path) == {}
    put_csv(tmp_path / "table.csv", HEADER, [(*rows[0][:5], "3"), *rows[1:]])
    again = planned(tmp_path)
    assert {"manifest", "folds"} <= set(again)
    assert again["train"] == again["predict_member"] == 2  # a changed weight retrains
