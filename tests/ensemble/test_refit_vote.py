"""Networks of all groups on the test images: their mean, the joint vote, the calibration, and scores on the answers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.config.ensemble import Submission, Vote
from foldvote.ensemble.refit_vote import RefitVoteFiles, RefitVoteInputs, write_refit_vote
from foldvote.errors import UserError
from foldvote.evaluation.calibration import apply_temperature
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.evaluation.metrics import macro_f1
from foldvote.evaluation.vote_table import votes_schema
from foldvote.inference.prediction_files import predictions_schema
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.splits.folds import FOLDS, split_sha256
from foldvote.splits.refit_split import everyone
from support.member_predictions import CLASSES, PROBABILITIES, TWO, Run, averaged

SEEDS = 3
ARGUMENTS = (Submission(), 100, 1, find_metrics(["macro_f1"], None))


class Refit:
    """A finished run of the folds, and predictions of networks of all groups beside it."""

    def __init__(self, root: Path, models: dict[str, tuple[str, ...]], refitted: list[str] | None = None) -> None:
        self.run = Run(root, models=models, tests=12)
        self.run.make(settings=Vote(use="mean", kinds=["mean"], calibration="temperature", draws=100))
        whole = everyone(self.run.folds)
        self.digest, self.folds = split_sha256(whole), root / "refit/folds.parquet"
        write_table(whole, self.folds, FOLDS, key=("image_id", "repeat"))
        write_json(self.folds.with_name("certificate.json"), {"split_sha256": self.digest})
        self.frames: dict[str, list[pd.DataFrame]] = {}
        self.paths = [self._put(model, number) for model in refitted or models for number in range(SEEDS)]
        manifest = pd.DataFrame({"image_id": self.run.test_ids, "group": pd.Series([None] * 12, dtype="string")})
        manifest.to_parquet(root / "test.parquet")
        self.files = RefitVoteFiles(
            root / "refit/test.parquet", root / "refit/vote.parquet", root / "refit/scores.json"
        )

    def _put(self, model: str, number: int) -> Path:
        path = self.run.root / f"refit/test/model={model}/fold={number}/predictions.parquet"
        frame = self.run.frame("test", model, 50 + number)
        self.frames.setdefault(model, []).append(frame)
        record = {"model": model, "fold": number, "split": "test", "split_sha256": self.digest, "classes": CLASSES}
        record |= {"data_sha256": "data of test", "weights_sha256": f"{model} {number}", "factors": None}
        record |= {"views": list(self.run.models[model])}
        write_table(frame.sample(frac=1, random_state=number), path, predictions_schema(CLASSES), record=record)
        return path

    def make(self, voters: int, answers: Path | None = None) -> None:
        out, root = self.run.root / "ensemble", self.run.root
        certificate, classes = self.folds.with_name("certificate.json"), root / "classes.json"
        split = (self.folds, certificate, classes, root / "test.parquet", answers)
        inputs = RefitVoteInputs(self.paths, out / "test.parquet", out / "weights.json", *split)
        write_refit_vote(inputs, self.files, voters, *ARGUMENTS)

    def written(self, path: Path) -> pd.DataFrame:
        return read_table(path, votes_schema(CLASSES, labelled=False), key=("image_id",))

    def expected(self) -> np.ndarray:
        """The mean of all networks, calibrated as the vote of the folds, the long way."""
        means = [
            np.mean([averaged(own).loc[self.run.test_ids] for own in some], axis=0) for some in self.frames.values()
        ]
        scaling = read_json(self.run.root / "ensemble/weights.json")["calibration"]
        return apply_temperature(np.mean(means, axis=0), scaling["temperature"])


@pytest.mark.parametrize(("refitted", "share"), [(None, 0.5), (["resnet"], 1 / 3)])
def test_networks_models_and_the_vote_of_the_folds_have_equal_weights(
    tmp_path: Path, refitted: list[str] | None, share: float
) -> None:
    refit = Refit(tmp_path, TWO, refitted)
    refit.make(voters=2)
    vote, alone, both = refit.run.votes("test"), refit.written(refit.files.refit), refit.written(refit.files.vote)
    assert alone["image_id"].tolist() == both["image_id"].tolist() == vote["image_id"].tolist()
    assert refit.run.test_ids == vote["image_id"].tolist()
    np.testing.assert_allclose(alone[PROBABILITIES], refit.expected(), atol=1e-6)
    mixed = (1 - share) * vote[PROBABILITIES].to_numpy() + share * refit.expected()
    np.testing.assert_allclose(both[PROBABILITIES], mixed, atol=1e-6)
    assert (both["prediction"] == both[PROBABILITIES].to_numpy().argmax(axis=1)).all()
    record = read_record(refit.files.vote)
    assert record["refit"]["resnet"]["2"] == "resnet 2" and record["members"] and record["split_sha256"] == refit.digest
    assert not refit.files.scores.exists()


@pytest.mark.parametrize("named", [True, False])
def test_answers_score_all_three_and_their_groups_are_drawn_where_they_are_named(tmp_path: Path, named: bool) -> None:
    refit = Refit(tmp_path, {"lite0": ("identity",)})
    truth = pd.DataFrame({"ImageID": refit.run.test_ids, "ans": np.arange(12) % len(CLASSES)})
    if named:
        truth["profile"] = [f"person {place // 4}" for place in range(12)]
    truth.sample(frac=1, random_state=1).to_csv(tmp_path / "answers.csv", index=False)
    refit.make(voters=1, answers=tmp_path / "answers.csv")
    found = read_json(refit.files.scores)
    assert (found["groups"], found["drawn"]) == ((3, "group") if named else (12, "image"))
    assert set(found["rows"]) == {"vote", "refit", "vote+refit"} and "test images" in found["scored_on"]
    predicted = refit.written(refit.files.vote)["prediction"].to_numpy()
    score = macro_f1(truth["ans"].to_numpy(), predicted, len(CLASSES))
    assert found["rows"]["vote+refit"]["macro_f1"] == pytest.approx(score)
    against = found["against_vote"]["vote+refit"]["macro_f1"]
    assert against["difference"] == pytest.approx(score - found["rows"]["vote"]["macro_f1"])
    assert against["low"] <= against["difference"] <= against["high"]


def test_a_network_of_other_test_images_is_refused(tmp_path: Path) -> None:
    refit = Refit(tmp_path, {"lite0": ("identity",)})
    vote = tmp_path / "ensemble/test.parquet"
    read_table(vote).iloc[1:].pipe(
        lambda rows: write_table(rows, vote, votes_schema(CLASSES, labelled=False), ("image_id",), read_record(vote))
    )
    with pytest.raises(UserError, match="holds other test images than"):
        refit.make(voters=1)
    assert not refit.files.refit.exists()
