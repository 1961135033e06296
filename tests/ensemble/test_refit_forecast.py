"""The forecast's files: points of the curve from the members' own images, and what the forecast is made of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.ensemble.headline import refit_line
from foldvote.ensemble.refit_forecast import ForecastInputs, write_forecast
from foldvote.errors import UserError
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.evaluation.metrics import accuracy
from foldvote.inference.prediction_files import predictions_schema
from foldvote.io.csv_files import read_csv
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS, split_sha256
from foldvote.splits.refit_split import write_curve_split
from foldvote.splits.train_only import train_only_counts, with_train_only
from support.finished_run import write_test_manifest
from support.member_predictions import CLASSES, TWO, Run, averaged

SHARES = (0.5, 0.8)


class Curve:
    """A finished run of the folds, and predictions of networks that learnt from fewer groups beside it."""

    def __init__(
        self, root: Path, chosen: list[int], models: dict[str, tuple[str, ...]], only_trained_on: Sequence[str] = ()
    ) -> None:
        self.run, self.root, self.chosen = Run(root, models=models, images=80, reserve=8), root, chosen
        certificate = {"data_sha256": "data"} | (self._add(only_trained_on) if only_trained_on else {})
        write_json(root / "certificate.json", certificate | {"split_sha256": self.run.digest})
        self.frames: dict[float, list[pd.DataFrame]] = {}
        self.paths: list[Path] = []
        for share in SHARES:
            folder = root / f"refit/curve/share={share}"
            made = folder / "folds.parquet", folder / "certificate.json"
            write_curve_split(root / "folds.parquet", root / "certificate.json", share, 1, *made)
            digest = read_json(made[1])["split_sha256"]
            self.paths += [self._put(folder, share, digest, model, fold) for model in models for fold in chosen]

    def _add(self, groups: Sequence[str]) -> dict[str, object]:
        """Add an image of each of these groups that is only trained on; the certificate counts them."""
        own = {"profile": groups, "group": groups, "stratum": "s", "label": 0}
        rows = pd.DataFrame({"image_id": [f"e/{name}" for name in groups]} | own)
        self.run.folds = with_train_only(self.run.folds, rows).astype({"repeat": "int8", "fold": "int8"})
        self.run.digest = split_sha256(self.run.folds)
        write_table(self.run.folds, self.root / "folds.parquet", FOLDS, record={"split_sha256": self.run.digest})
        for member in self.run.members():
            self.run.member("oof", *member)
        return {"train_only": train_only_counts(self.run.folds)}

    def _put(self, folder: Path, share: float, digest: str, model: str, fold: int) -> Path:
        frame = self.run.frame("oof", model, fold)
        logits = frame[[name for name in frame if name.startswith("logit_")]]
        noise = generator(3, str(share), model, fold).normal(0, 2 - share, logits.shape)
        frame[logits.columns] = (logits + noise).astype(np.float32)
        self.frames.setdefault(share, []).append(frame)
        record = {"model": model, "fold": fold, "split": "oof", "split_sha256": digest, "classes": CLASSES}
        record |= {"data_sha256": "data of oof", "weights_sha256": "w", "views": list(self.run.models[model])}
        path = folder / f"oof/model={model}/fold={fold}/predictions.parquet"
        write_table(frame, path, predictions_schema(CLASSES), record=record)
        return path

    def make(self, test_manifest: Path | None = None) -> dict:
        curve = [self.root / f"refit/curve/share={share}" for share in SHARES]
        inputs = ForecastInputs(
            [self.run.path("oof", model, fold) for model in self.run.models for fold in self.chosen],
            self.paths,
            [folder / "folds.parquet" for folder in curve],
            [folder / "certificate.json" for folder in curve],
            *(self.root / name for name in ("folds.parquet", "certificate.json", "classes.json")),
            test_manifest,
        )
        made = self.root / "refit/forecast.json", self.root / "refit/curve.csv"
        metrics = find_metrics(["balanced_accuracy"], None)
        write_forecast(inputs, *made, self.chosen, 5, ["lite0"], 100, 1, metrics)
        return read_json(made[0])


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [1, 3]])
def test_points_are_the_scores_of_single_networks_on_the_images_of_the_chosen_folds(
    tmp_path: Path, chosen: list[int]
) -> None:
    curve = Curve(tmp_path, chosen, {"lite0": ("identity", "hflip")})
    found = curve.make()
    table = read_csv(tmp_path / "refit/curve.csv")
    rows = table[(table["of"] == "refit") & (table["metric"] == "accuracy")]
    assert rows["kind"].tolist() == ["measured"] * 3 + ["forecast"]
    labels = curve.run.folds.set_index("image_id")["label"]
    for share in SHARES:
        mean = averaged(pd.concat(curve.frames[share]))
        expected = accuracy(labels.reindex(mean.index).to_numpy(), mean.to_numpy().argmax(axis=1))
        (value,) = rows.loc[rows["share"] == str(share), "value"]
        assert float(value) == pytest.approx(expected, abs=1e-6)
    assert rows["groups"].astype(float).tolist() == [30, 48, 60, 88]  # 80 images of a group each and 8 of the reserve
    assert found["groups"] == {"of_a_fold": 60, "all": 88, "scored": 20 * len(chosen)}
    for metric in ("accuracy", "macro_f1", "log_loss", "brier", "balanced_accuracy"):
        made = found["forecasts"]["refit"][metric]
        parts = made["measured_by_folds"] + made["from_more_groups"] + made["from_averaging"]
        assert made["value"] == pytest.approx(parts, abs=1e-5)
        assert made["low"] <= made["value"] <= made["high"]
    assert "ece" not in found["forecasts"]["refit"]
    assert "forecast" in found["what"] and found["notes"][0].startswith("lite0: ")
    line = refit_line(found)
    assert "balanced" in line and "a forecast from the learning curve" in line and "all 88 groups, 5 networks" in line


def test_groups_that_are_only_trained_on_move_no_point_of_the_curve(tmp_path: Path) -> None:
    found, tables = [], []
    for name, groups in (("plain", []), ("external", [f"stranger {number}" for number in range(300)])):
        (tmp_path / name).mkdir()
        curve = Curve(tmp_path / name, [0, 1], {"lite0": ("identity",)}, groups)
        write_test_manifest(tmp_path / name, 44, None)
        found.append(curve.make(tmp_path / name / "data/manifest/split=test/manifest.parquet"))
        tables.append((tmp_path / name / "refit/curve.csv").read_text())
    assert found[0] == found[1] and tables[0] == tables[1]
    assert found[1]["groups"] == {"of_a_fold": 60, "all": 88, "scored": 40} and found[1]["test_groups"] == 44


def test_several_models_are_forecast_together_and_one_by_one(tmp_path: Path) -> None:
    assert set(Curve(tmp_path, [0, 2], TWO).make()["forecasts"]) == {"refit", *TWO}


def test_predictions_of_another_split_are_refused(tmp_path: Path) -> None:
    curve = Curve(tmp_path, [0], {"lite0": ("identity",)})
    folder = tmp_path / "refit/curve/share=0.5"
    made = folder / "folds.parquet", folder / "certificate.json"
    write_curve_split(tmp_path / "folds.parquet", tmp_path / "certificate.json", 0.5, 2, *made)
    with pytest.raises(UserError, match="was made with another split"):
        curve.make()
    assert not (tmp_path / "refit/forecast.json").exists()
