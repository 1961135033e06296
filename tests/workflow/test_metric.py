"""Two classes scored by ROC AUC, from a table of pictures to submitted probabilities, and a metric of one's own."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from support.data_folders import put_csv
from support.snakemake_run import CONFIG, jobs_that_ran, planned, snakemake, write_config

TINY = CONFIG["models"]["tiny"] | {"epochs": 3}
OWN = "def {name}(labels, probabilities, names):\n    return -((labels - probabilities[:, 1]) ** 2).mean()\n"


def draw(root: Path) -> tuple[pd.Series, Path]:
    """Pictures of 30 healthy and ill patients, two each; the ill ones are redder, some of them hardly."""
    rows, answers, draws = [], {}, np.random.default_rng(5)
    for patient in range(30):
        ill = patient % 3 == 0
        for shot in range(2):
            pixels = draws.integers(40, 160, (36, 28, 3))
            pixels[..., 0] += int(ill) * int(draws.integers(0, 70))
            path = f"images/{patient}-{shot}.png"
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / path)
            is_test = patient >= 24
            rows.append(
                (
                    path,
                    f"patient {patient}",
                    "" if is_test else ["healthy", "ill"][ill],
                    "test" if is_test else "train",
                )
            )
            if is_test:
                answers[path] = ["healthy", "ill"][ill]
    put_csv(root / "table.csv", ("path", "group", "label", "split"), rows)
    put_csv(root / "sample.csv", ("image", "ill"), [(path, 0.5) for path in reversed(answers)])
    put_csv(root / "answers.csv", ("image", "ans"), [*answers.items()])
    return pd.Series(answers), root


def test_two_classes_are_scored_and_chosen_by_roc_auc_from_a_table_to_probabilities(tmp_path: Path) -> None:
    answers, _ = draw(tmp_path / "data")
    settings = {
        "data": {"layout": "table", "table": "table.csv", "split": "split", "classes": ["healthy", "ill"]},
        "data_root": "data",
        "answers": "answers.csv",
        "images": {"min_side": 8},
        "folds": {"method": "holdout", "fraction": 0.4, "reserve": 0.25},
        "submission": {"sample": "sample.csv", "answer": "probabilities", "id_column": "image"},
        "metric": "roc_auc",
        "models": {"chosen": TINY | {"epoch": "best"}, "last": TINY},
    }
    write_config(tmp_path, **settings)
    printed = snakemake(tmp_path)
    assert "ROC AUC" in printed
    results = tmp_path / "results"

    board = pd.read_csv(results / "leaderboard.csv")
    assert board.columns[4:7].tolist() == ["roc_auc", "roc_auc_low", "roc_auc_high"]
    ensemble = board.iloc[0]
    for part, column in (("oof", "roc_auc"), ("reserve", "reserve_roc_auc")):
        rows = pd.read_parquet(results / f"ensemble/{part}.parquet")
        assert ensemble[column] == pytest.approx(roc_auc_score(rows["label"], rows["p_ill"]), abs=1e-6)
    test = pd.read_parquet(results / "ensemble/test.parquet").set_index("image_id")
    truth = answers[test.index] == "ill"
    assert ensemble["test_roc_auc"] == pytest.approx(roc_auc_score(truth, test["p_ill"]), abs=1e-6)
    assert ensemble["roc_auc_low"] <= ensemble["roc_auc"] <= ensemble["roc_auc_high"]

    submission = pd.read_csv(results / "submission.csv")
    assert submission["image"].tolist() == list(answers.index)[::-1]
    assert submission["ill"].tolist() == pytest.approx(test.loc[submission["image"], "p_ill"].tolist(), abs=1e-8)

    history = pd.read_parquet(results / "train/model=chosen/fold=0/history.parquet")
    assert history["val_roc_auc"][history["best"]].item() == history["val_roc_auc"].max()
    sidecar = json.loads((results / "train/model=chosen/fold=0/model.json").read_text(encoding="utf-8"))
    assert sidecar["recipe"]["best_by"] == "roc_auc" and sidecar["val_roc_auc"] == history["val_roc_auc"].max()
    assert "val_roc_auc" not in pd.read_parquet(results / "train/model=last/fold=0/history.parquet")

    # Another metric reruns the model that chooses an epoch by it, and what follows; the other one stays.
    after = {"ensemble": 1, "review": 1, "submission": 1}
    write_config(tmp_path, **settings | {"metric": "average_precision"})
    assert planned(tmp_path) == {"train": 1, "predict_member": 1, **after}

    # A metric of one's own: its text is an input, and one that fails is told before anything runs.
    own = tmp_path / "closeness.py"
    own.write_text("def closeness(labels): pass", encoding="utf-8")
    settings |= {
        "metric": "closeness.py",
        "models": {"chosen": TINY | {"epoch": "best", "best_by": "roc_auc"}, "last": TINY},
    }
    write_config(tmp_path, **settings)
    assert "metric: closeness.py failed: TypeError" in snakemake(tmp_path, "-n", code=1)
    own.write_text(OWN.format(name="closeness"), encoding="utf-8")
    assert planned(tmp_path) == after
    assert jobs_that_ran(snakemake(tmp_path)) == after
    board, oof = pd.read_csv(results / "leaderboard.csv"), pd.read_parquet(results / "ensemble/oof.parquet")
    assert board.columns[4] == "closeness"
    assert board["closeness"][0] == pytest.approx(-((oof["label"] - oof["p_ill"]) ** 2).mean(), abs=1e-6)
    assert planned(tmp_path) == {}
    own.write_text(OWN.format(name="other"), encoding="utf-8")
    assert planned(tmp_path) == after
