"""Data from elsewhere with a layout of its own, from its table to the submission of the data."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from foldvote.config.experiment import load_config
from foldvote.data.manifest_table import ONLY
from foldvote.io.files import read_json
from foldvote.splits.folds import SplitFiles, fold_rows
from foldvote.splits.train_only import TRAIN_ONLY
from foldvote.training.training_set import MemberInputs, build_training_set
from support.data_folders import encoded, maskbase_folder, picture, put, put_csv
from support.snakemake_run import CONFIG, planned, snakemake, write_config

HEADER = ("file", "who", "shows", "w")
PERSONS = [(f"{n:06d}", ("female", "male")[n % 2], "Asian", 25 + 3 * n) for n in range(1, 11)]
ROWS = [
    ("a.jpg", "stranger", "young masked woman", "3"),
    ("b.jpg", "000003", "wear-male-30to59", ""),  # a person of the data, by name
    ("c.jpg", "other", "wear-female-30to59", ""),  # a copy of a picture of the data
    ("d.jpg", "stranger", "cartoon", ""),  # left out
]
CLASSES = {"young masked woman": "wear-female-under30", "cartoon": None}


def test_a_block_with_a_layout_of_its_own_is_learnt_from_and_never_scored(tmp_path: Path) -> None:
    maskbase_folder(tmp_path / "photos", PERSONS)
    for number, row in enumerate(ROWS):
        put(tmp_path / "web" / row[0], encoded(picture(seed=5000 + number)))
    put_csv(tmp_path / "web/table.csv", HEADER, ROWS)
    shutil.copy(tmp_path / "photos/train/images/000004_female_Asian_37/mask2.jpg", tmp_path / "web/c.jpg")
    table = {"layout": "table", "table": "table.csv", "path": "file", "group": "who", "label": "shows", "weight": "w"}
    block = {"data_root": "web", "data": table, "classes": CLASSES, "weight": 0.5}
    values = {
        "data": {"layout": "maskbase"},
        "data_root": "photos",
        "answers": None,
        "folds": {"k": 2, "stratify": ["gender"], "reserve": 0.2},
        "models": {"tiny": CONFIG["models"]["tiny"] | {"epochs": 1}},
    }
    write_config(tmp_path, **values, external={"web": block | {"data_root": "wbe"}})
    assert "external.web.data_root: wbe is not there; correct the path" in snakemake(tmp_path, "-n", code=None)
    write_config(tmp_path, **values, external={"web": block | {"classes": {}}})
    told = snakemake(tmp_path, "prepare", code=None)
    assert "external.web: the data has no class 'cartoon', which 1 images here are of; say" in told
    assert not (tmp_path / "results/data").exists()

    write_config(tmp_path, **values, external={"web": block})
    snakemake(tmp_path, "all", "data_check")
    results, ids = tmp_path / "results", [f"web/{name}.jpg" for name in "abc"]
    manifest = pd.read_parquet(results / "data/manifest/split=train/manifest.parquet").set_index("image_id")
    assert manifest.index[manifest[ONLY]].tolist() == ids and len(manifest) == 73
    assert manifest.loc[ids, "class_name"].tolist()[0] == "wear-female-under30"
    folds = pd.read_parquet(results / "folds/folds.parquet")
    outside = folds[folds["fold"] == TRAIN_ONLY].set_index("image_id")
    assert outside["sample_weight"].to_dict() == dict(zip(ids, (1.5, 0.5, 0.5), strict=True))
    proof = read_json(results / "folds/certificate.json")["train_only"]
    assert (proof["images"], proof["groups"], proof["shared_groups"]) == (3, 3, 2)

    config = load_config(tmp_path / "config.yaml")
    packed = results / f"data/pixels/{config.models['tiny'].packed.folder}/train.arrow"
    split = SplitFiles(
        *(results / name for name in ("data/classes.json", "folds/folds.parquet", "folds/certificate.json"))
    )
    place = folds[folds["fold"] != TRAIN_ONLY].drop_duplicates("group").set_index("group")["fold"]
    for fold in (0, 1):
        kept_out = [
            name for name, group in zip(ids[1:], ("000003", "000004"), strict=True) if place[group] in (fold, -2)
        ]
        assert proof["kept_out"][fold] == {"fold": fold, "images": len(kept_out), "groups": len(kept_out)}
        learnt, validated = fold_rows(folds, fold)
        assert set(ids) - set(learnt["image_id"]) == set(kept_out) and not set(ids) & set(validated["image_id"])
        made = build_training_set(config.models["tiny"], fold, MemberInputs(packed, split))  # what the loss is given
        weights = dict(zip(made.training["image_id"], made.weights, strict=True))
        mean = (1.5 + 0.5 * (2 - len(kept_out)) + len(learnt) - 3 + len(kept_out)) / len(learnt)
        assert np.isclose(weights[ids[0]], 1.5 / mean) and all(
            np.isclose(weights[name], 0.5 / mean) for name in ids[1:] if name not in kept_out
        )
        predicted = pd.read_parquet(results / f"oof/model=tiny/fold={fold}/predictions.parquet")["image_id"]
        assert set(predicted) == set(validated["image_id"])
    for part in ("oof", "reserve"):
        assert not set(ids) & set(pd.read_parquet(results / f"ensemble/{part}.parquet")["image_id"])
    page = (results / "data_check.html").read_text()
    assert "external.web: 3 images of 3 groups, weight 0.833 on average." in page
    assert planned(tmp_path) == {}
    put(tmp_path / "web/a.jpg", encoded(picture(seed=7000)))
    again = planned(tmp_path)
    assert again["manifest"] == again["pixels"] == 1 and again["train"] == 2  # those of test images stay
