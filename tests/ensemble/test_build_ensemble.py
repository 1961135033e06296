"""The ensemble: what it writes, and that it is the mean of what the members predict."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from foldvote.ensemble.leaderboard import COLUMNS, COST_COLUMNS, TEST_COLUMNS, summary
from foldvote.evaluation.metrics import MORE_SCORES
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT
from foldvote.io.files import read_json
from foldvote.io.parquet import read_record
from foldvote.runtime.seeding import generator
from support.member_predictions import CLASSES, LABEL_SPACE, PROBABILITIES, TWO, Run, answers_file, averaged


def test_predictions_are_the_mean_over_views_then_models_joined_by_id(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    oof = run.votes("oof")
    once = run.folds[run.folds["repeat"] == 0]
    assert oof["image_id"].tolist() == once["image_id"].tolist()
    assert (oof[["fold", "label"]].to_numpy() == once[["fold", "label"]].to_numpy()).all()
    by_model = [pd.concat(averaged(run.frame("oof", model, fold)) for fold in range(4)) for model in TWO]
    expected = sum(own.loc[oof["image_id"]].to_numpy() for own in by_model) / 2
    np.testing.assert_allclose(oof[PROBABILITIES], expected, rtol=1e-6)
    np.testing.assert_allclose(oof[PROBABILITIES].sum(axis=1), 1, atol=1e-12)
    assert (oof["prediction"] == expected.argmax(axis=1)).all()
    assert oof["prediction_name"].tolist() == [CLASSES[code] for code in oof["prediction"]]

    test = run.votes("test")
    assert test["image_id"].tolist() == run.test_ids
    by_model = [sum(averaged(run.frame("test", model, fold)) for fold in range(4)) / 4 for model in TWO]
    np.testing.assert_allclose(test[PROBABILITIES], sum(by_model).loc[run.test_ids].to_numpy() / 2, rtol=1e-6)
    assert read_record(tmp_path / "ensemble/oof.parquet")["members"]["resnet"]["3"] == "weights of resnet 3"


def test_metrics_are_of_the_whole_oof_and_of_each_members_own_fold(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    oof, metrics = run.votes("oof"), run.metrics
    assert (metrics["images"], metrics["test_images"], metrics["classes"]) == (24, 10, CLASSES)
    assert "test" not in metrics
    options = {"labels": list(range(6)), "average": "macro", "zero_division": 0}
    expected = f1_score(oof["label"], oof["prediction"], **options)
    assert metrics["oof"]["ensemble"]["macro_f1"] == pytest.approx(expected)
    assert metrics["oof"]["models"]["lite0"]["images"] == 24
    own, rows = averaged(run.frame("oof", "resnet", 2)), run.folds[run.folds["fold"] == 2].set_index("image_id")
    expected = f1_score(rows.loc[own.index, "label"], own.to_numpy().argmax(axis=1), **options)
    assert metrics["oof"]["members"]["resnet"]["2"]["macro_f1"] == pytest.approx(expected)
    assert metrics["oof"]["members"]["resnet"]["2"]["images"] == 6
    assert set(metrics["oof"]["ensemble"]["factors"]) == {"mask", "age"}


def test_f59_an_ensemble_of_one_model_is_that_member_and_identity_alone_is_no_tta(tmp_path):
    run = Run(tmp_path, models={"only": ("identity",)}, k=2)
    run.make()
    oof = run.votes("oof").set_index("image_id")
    for fold in range(2):
        frame = run.frame("oof", "only", fold)
        exact = softmax(frame[[LOGIT + name for name in CLASSES]].to_numpy())
        assert (oof.loc[frame["image_id"], PROBABILITIES].to_numpy() == exact.astype(np.float32)).all()
    single = Run(tmp_path / "single", models={"only": ("identity",)}, k=2, holdout=True)
    single.make()
    frame = single.frame("test", "only", 0)
    exact = softmax(frame[[LOGIT + name for name in CLASSES]].to_numpy())
    assert (single.votes("test")[PROBABILITIES].to_numpy() == exact.astype(np.float32)).all()


def test_f59_weights_are_equal_and_sum_to_one(tmp_path):
    run = Run(tmp_path, models=dict.fromkeys(("a", "b", "c"), ("identity",)), k=2)
    run.make()
    weights = read_json(tmp_path / "ensemble/weights.json")
    assert (weights["kind"], list(weights["weights"])) == ("mean", ["a/identity", "b/identity", "c/identity"])
    assert sum(weights["weights"].values()) == pytest.approx(1, abs=1e-15)


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_the_order_of_files_and_rows_changes_no_byte(tmp_path_factory, seed):
    run, draws = Run(tmp_path_factory.mktemp("run"), models=TWO, k=2), generator(seed, "shuffle")
    run.make()
    names = ("ensemble/oof.parquet", "ensemble/test.parquet", "ensemble/metrics.json", "leaderboard.csv")
    before = [(run.root / name).read_bytes() for name in names]
    for split, model, fold in [("oof", "lite0", 1), ("oof", "resnet", 0), ("test", "resnet", 1)]:
        run.member(split, model, fold, spoil=lambda frame: frame.iloc[draws.permutation(len(frame))])
    paths = {split: [run.path(split, *member) for member in run.members()] for split in ("oof", "test")}
    mixed = {split: [own[place] for place in draws.permutation(4)] for split, own in paths.items()}
    run.make(**mixed, expected=dict(reversed(run.expected.items())))
    assert [(run.root / name).read_bytes() for name in names] == before


def test_repeats_are_averaged_and_the_fold_is_that_of_the_first(tmp_path):
    run = Run(tmp_path, k=3, repeats=2)
    run.make()
    oof = run.votes("oof")
    first = run.folds[run.folds["repeat"] == 0].set_index("image_id")
    assert len(oof) == run.metrics["oof"]["models"]["lite0"]["images"] == 24
    assert (oof["fold"] == first.loc[oof["image_id"], "fold"].to_numpy()).all()
    both = pd.concat(averaged(run.frame("oof", "lite0", fold)) for fold in range(6))
    expected = both.groupby(level=0).mean().loc[oof["image_id"]]
    np.testing.assert_allclose(oof[PROBABILITIES], expected, rtol=1e-6)
    assert len(run.leaderboard) == 1 + 1 + 1 + 6


def test_a_holdout_covers_its_validation_part_alone(tmp_path):
    run = Run(tmp_path, holdout=True)
    run.make()
    assert run.votes("oof")["image_id"].tolist() == run.folds.loc[run.folds["fold"] == 0, "image_id"].tolist()
    assert run.metrics["images"] == 6
    assert run.leaderboard["kind"].tolist() == ["ensemble", "vote", "model", "member"]


def test_no_test_set_writes_no_test_predictions(tmp_path):
    run = Run(tmp_path, tests=0)
    run.make()
    assert sorted(path.name for path in (tmp_path / "ensemble").iterdir()) == [
        "label_issues.parquet",
        "metrics.json",
        "oof.parquet",
        "reliability.csv",
        "slices.csv",
        "votes.json",
        "weights.json",
    ]
    assert "test_images" not in run.metrics


def test_answers_are_joined_by_id_and_scored(tmp_path):
    run = Run(tmp_path, models=TWO)
    truth = generator(1, "truth").integers(0, 6, 10)
    rows = list(zip(run.test_ids, truth, strict=True))
    run.make(answers=answers_file(run, rows[::-1]))
    test = run.votes("test")
    options = {"labels": list(range(6)), "average": "macro", "zero_division": 0}
    found = run.metrics["test"]
    assert found["ensemble"]["macro_f1"] == pytest.approx(f1_score(truth, test["prediction"], **options))
    assert found["ensemble"]["accuracy"] == pytest.approx(np.mean(truth == test["prediction"]))
    assert set(found["models"]) == set(TWO)
    board = run.leaderboard
    assert tuple(board.columns) == COLUMNS + TEST_COLUMNS + MORE_SCORES + COST_COLUMNS
    assert float(board["test_accuracy"][0]) == pytest.approx(found["ensemble"]["accuracy"], abs=1e-6)
    assert (board.loc[board["kind"] == "member", "test_accuracy"] == "").all()
    named = answers_file(run, [(name, CLASSES[code]) for name, code in rows])
    run.make(answers=named, answer="name")
    assert run.metrics["test"] == found


def test_answers_never_change_a_prediction(tmp_path):
    run = Run(tmp_path)
    run.make()
    before = (tmp_path / "ensemble/test.parquet").read_bytes()
    run.make(answers=answers_file(run, [(name, 0) for name in run.test_ids]))
    assert (tmp_path / "ensemble/test.parquet").read_bytes() == before


def test_f55_the_test_predictions_are_joined_by_id_over_members_in_different_orders(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    before = run.votes("test")
    for member in [("lite0", 0), ("resnet", 3)]:
        run.member("test", *member, spoil=lambda frame: frame.iloc[::-1])
    run.make()
    after = run.votes("test").set_index("image_id").loc[before["image_id"]].reset_index()
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_factor_models_multiply_to_one_and_are_scored_on_their_own_classes(tmp_path: Path) -> None:
    views = ("identity", "hflip")
    run = Run(tmp_path, {"ages": views, "masks": views, "whole": views}, repeats=2)
    of_class = {name: LABEL_SPACE.level_codes(name) for name in LABEL_SPACE.factors}
    for model, factor in (("ages", "age"), ("masks", "mask")):
        for split in ("oof", "test"):
            for fold in range(run.expected[model]):

                def same_for_other_factors(frame: pd.DataFrame, levels: np.ndarray = of_class[factor]) -> pd.DataFrame:
                    logits = frame[[LOGIT + name for name in CLASSES]].to_numpy()
                    firsts = [levels.tolist().index(level) for level in levels]
                    return frame.assign(**dict(zip([LOGIT + n for n in CLASSES], logits[:, firsts].T, strict=True)))

                run.member(split, model, fold, spoil=same_for_other_factors, record_with={"factors": [factor]})
    run.make()
    models = run.metrics["oof"]["models"]
    assert set(models["masks"]["classes"]) == {"wear", "not"}
    assert models["masks"]["factors_learnt"] == ["mask"]
    assert set(models["ages*masks"]["classes"]) == set(CLASSES)
    weights = read_json(tmp_path / "ensemble/weights.json")["weights"]
    assert weights == {f"{model}/{view}": 0.25 for model in ("ages*masks", "whole") for view in views}
    kinds = run.leaderboard.set_index("model")["kind"]
    assert kinds["ages*masks"] == "product"
    assert set(kinds[["ages", "masks"]].tolist()) == {"model", "member"}
    fits = run.leaderboard[run.leaderboard["kind"] != "member"].set_index("model")["fit_seconds"].astype(float)
    assert fits["ages*masks"] == fits["ages"] + fits["masks"]
    text = summary(run.leaderboard, run.metrics)
    assert "masks (8 folds, mask alone)" in text
    assert "ages*masks  " in text
