"""Metadata, from the table to the submission."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from foldvote import Ensemble
from foldvote.deployment.onnx_graph import export_refusals
from foldvote.errors import UserError
from foldvote.io.files import read_json
from support.data_folders import class_folders, put_csv, table_folder
from support.snakemake_run import CONFIG, planned, snakemake, write_config

HEADER = ("path", "group", "label", "split", "age", "site")
ROWS = [
    (f"p{person:02d}_{shot}.jpg", f"p{person:02d}", "xy"[person % 2], "train")
    for person in range(12)
    for shot in range(2)
]
TINY = CONFIG["models"]["tiny"] | {"epochs": 1}


def test_metadata_from_the_table_to_the_submission(tmp_path: Path) -> None:
    rows = [
        (*row, str(20 + number) if number % 4 else "", ("north", "")[number % 2]) for number, row in enumerate(ROWS)
    ]
    rows += [
        ("t0.jpg", "", "", "test", "31.5", "north"),
        ("t1.jpg", "", "", "test", "", "elsewhere"),
        ("t2.jpg", "", "", "test", "1e3", ""),
    ]
    table_folder(tmp_path, rows, HEADER)
    beside = {"age": "number", "site": "category"}
    settings = {
        "data": {"layout": "table", "table": "table.csv", "split": "split", "metadata": beside},
        "data_root": ".",
        "answers": None,
        "folds": {"k": 2, "reserve": 0.2},
        "images": {"min_side": 8},
        "models": {"plain": TINY, "both": TINY | {"metadata": True}},
        "vote": {"kinds": ["mean", "stacking", "stacking_metadata"]},
    }
    put_csv(tmp_path / "table.csv", HEADER, [*rows[:-1], (*rows[-1][:4], "31,5", "")])
    write_config(tmp_path, **settings)
    told = snakemake(tmp_path, "all", code=None)
    assert "row 28: age '31,5' is no finite number" in told
    put_csv(tmp_path / "table.csv", HEADER, rows)
    snakemake(tmp_path, "all", "data_check", "results/submission/vote=stacking_metadata.csv")
    results = tmp_path / "results"
    manifest = pd.read_parquet(results / "data/manifest/split=train/manifest.parquet").set_index("image_id")
    assert manifest["meta_age"].isna().sum() == 6 and manifest["meta_site"].isna().sum() == 12
    folds = pd.read_parquet(results / "folds/folds.parquet").set_index("image_id")["fold"]
    for fold in (0, 1):
        learnt = manifest.loc[folds.index[folds == 1 - fold]]
        age, site = read_json(results / f"train/model=both/fold={fold}/model.json")["metadata"]["columns"]
        assert np.isclose(age["mean"], learnt["meta_age"].mean()) and site["levels"] == ["north"]
        assert "metadata" not in read_json(results / f"train/model=plain/fold={fold}/model.json")
    board = pd.read_csv(results / "leaderboard.csv")
    scores = board.groupby(["kind", "model"])["log_loss"].first()
    assert scores["model", "both"] != scores["ablation", "both without metadata"]
    assert scores["vote", "stacking"] != scores["vote", "stacking_metadata"]
    assert ("ablation", "plain without metadata") not in scores
    for name in ("submission.csv", "submission/vote=stacking_metadata.csv"):
        assert pd.read_csv(results / name)["ImageID"].tolist() == ["t0.jpg", "t1.jpg", "t2.jpg"]
    for part, images in (("oof", None), ("test", 3)):
        table = pq.read_table(results / f"{part}/model=both/fold=0/predictions.parquet").to_pandas()
        assert np.isfinite(table.filter(like="logit_")).all(axis=None)
        assert images is None or table["image_id"].nunique() == images
    assert "Metadata of the images of each split" in (results / "data_check.html").read_text()
    assert planned(tmp_path) == {}
    for target in ("bundle", "export_timm", "average_weights"):
        told = snakemake(tmp_path, target, code=None)
        assert f"{target}: models.both sees metadata" in told and "Error" not in told
    _new_images_have_metadata_too(tmp_path, results, rows)
    put_csv(tmp_path / "table.csv", HEADER, [*rows[:-3], (*rows[-3][:4], "99", "north"), *rows[-2:]])
    again = planned(tmp_path)
    assert {"manifest", "predict_member"} <= set(again), again


def _new_images_have_metadata_too(folder: Path, results: Path, rows: list[tuple[str, ...]]) -> None:
    class_folders(folder, ["new/a.jpg"])
    told = snakemake(folder, "predict", "--config", "new=new", code=None)
    assert "new: new is a folder, and the ensemble sees age, site beside an image" in told
    images = [row for row in rows if row[3] == "test"]
    put_csv(folder / "new.csv", ("path", "site"), [(row[0], row[5]) for row in images])
    told = snakemake(folder, "predict", "--config", "new=new.csv", code=None)
    assert "new.csv: has no column 'age', which the ensemble sees beside the image" in told
    put_csv(folder / "new.csv", ("path", "site", "age"), [(row[0], row[5], row[4]) for row in images])
    snakemake(folder, "predict", "--config", "new=new.csv")
    made = pd.read_parquet(results / "new/predictions.parquet").set_index("image_id")
    test = pd.read_parquet(results / "ensemble/test.parquet").set_index("image_id").loc[made.index]
    assert np.allclose(made.filter(like="p_"), test.filter(like="p_"), rtol=0, atol=1e-6)
    # Other metadata of the same file is another image.
    put_csv(folder / "new.csv", ("path", "site", "age"), [(row[0], row[5], "20") for row in images])
    told = snakemake(folder, "predict", "--config", "new=new.csv")
    assert "3 images: 3 predicted now, 0 known from before" in told
    again = pd.read_parquet(results / "new/predictions.parquet").set_index("image_id").loc[made.index]
    assert not np.allclose(made.filter(like="p_"), again.filter(like="p_"), rtol=0, atol=1e-6)
    _so_it_is_in_python(folder, results, images, made)


def _so_it_is_in_python(folder: Path, results: Path, images: list[tuple[str, ...]], made: pd.DataFrame) -> None:
    ensemble, paths = Ensemble.load(results, "cpu", 1), [folder / row[0] for row in images]
    beside = pd.DataFrame({"site": ["north", "elsewhere", None], "age": [31.5, np.nan, 1000], "other": 0})
    assert ensemble.run.metadata == {"age": "number", "site": "category"}
    found = ensemble.predict_proba(paths, beside)
    assert np.allclose(found, made[[f"p_{name}" for name in ensemble.classes_]], rtol=0, atol=1e-6)
    assert ensemble.predict(paths, beside).tolist() == made["class"].tolist()
    for wrong, words in ((None, "metadata: is missing; give"), (beside[:2], "metadata: has 2 rows for 3 images")):
        with pytest.raises(UserError, match=words):
            ensemble.predict(paths, wrong)
    with pytest.raises(UserError, match="metadata, row 1: age 'old' is no finite number"):
        ensemble.predict(paths, beside.assign(age=["20", "old", ""]))
    assert [line for line in export_refusals(ensemble.run) if "the model both of its vote sees metadata" in line]
