"""The reserve: what the vote of all members is worth, and what calibrates it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from foldvote.config.ensemble import Vote
from foldvote.ensemble.leaderboard import RESERVE_COLUMNS
from foldvote.ensemble.reserve import count_looks
from foldvote.evaluation.calibration import apply_temperature
from foldvote.io.files import read_json
from support.member_predictions import CLASSES, PROBABILITIES, TWO, Run, averaged


def mean_of_members(run, split, models):
    """The mean over models, folds and views, the long way."""
    by_model = [sum(averaged(run.frame(split, model, fold)) for fold in range(run.k)) / run.k for model in models]
    return sum(by_model) / len(models)


def test_the_reserve_is_scored_as_the_mean_of_all_members(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.make()
    expected = mean_of_members(run, "reserve", TWO)
    reserve = run.votes("reserve").set_index("image_id")
    np.testing.assert_allclose(reserve[PROBABILITIES], expected.loc[reserve.index], rtol=1e-6)
    scores = run.metrics["reserve"]
    f1 = f1_score(
        reserve["label"],
        expected.loc[reserve.index].to_numpy().argmax(axis=1),
        labels=range(len(CLASSES)),
        average="macro",
        zero_division=0,
    )
    for place in (scores["ensemble"], scores["votes"]["mean"]):
        assert place["macro_f1"] == pytest.approx(f1)
        low, high = place["intervals"]["macro_f1"]
        assert low < high
    assert (scores["images"], scores["groups"], set(scores["models"])) == (30, 30, set(TWO))
    board = run.leaderboard
    assert set(RESERVE_COLUMNS) <= set(board.columns)
    assert float(board.loc[board["kind"] == "ensemble", "reserve_macro_f1"].iloc[0]) == pytest.approx(f1, abs=1e-6)
    assert (board.loc[board["kind"] == "member", "reserve_macro_f1"] == "").all()


def test_without_a_reserve_nothing_speaks_of_one(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    assert "reserve" not in run.metrics
    assert not [name for name in run.leaderboard.columns if "reserve" in name]
    assert not (tmp_path / "reserve_looks.json").exists()


def test_the_temperature_of_the_submitted_vote_is_fitted_on_the_reserve(tmp_path):
    """Members that are each uncertain: out of fold a temperature far below 1, for their mean an even lower one."""
    run = Run(tmp_path, models=TWO, reserve=60, images=60)
    run.make(settings=Vote(use="mean", kinds=["mean"], draws=100))
    scaling = read_json(tmp_path / "ensemble/weights.json")["calibration"]
    assert (scaling["method"], scaling["source"]) == ("temperature", "reserve")
    raw = mean_of_members(run, "test", TWO).loc[run.test_ids].to_numpy()
    expected = apply_temperature(raw, scaling["temperature"])
    np.testing.assert_allclose(run.votes("test")[PROBABILITIES], expected, rtol=1e-5)


def test_the_choice_is_made_on_the_reserve(tmp_path):
    """A model that is good out of fold and useless on the reserve is not chosen."""
    run = Run(tmp_path, models={"good": ("identity",), "leaky": ("identity",)}, reserve=60, images=60)

    def certain(split):
        def spoil(frame):
            logits = [name for name in frame if name.startswith("logit_")]
            values = np.zeros((len(frame), len(logits)), np.float32)
            label = frame["label"].to_numpy(int)
            shift, size = (0, 9) if split == "oof" else (1, 1)
            values[np.arange(len(frame)), (label + shift) % len(logits)] = size
            return frame.assign(**dict(zip(logits, values.T, strict=True)))

        return spoil

    for fold in range(run.k):
        run.member("oof", "leaky", fold, spoil=certain("oof"))
        run.member("reserve", "leaky", fold, spoil=certain("reserve"))
    run.make(settings=Vote(kinds=["mean", "best_model"], draws=200))
    metrics = run.metrics
    assert metrics["oof"]["votes"]["best_model"]["macro_f1"] == 1
    assert metrics["reserve"]["votes"]["best_model"]["macro_f1"] < metrics["reserve"]["votes"]["mean"]["macro_f1"]
    assert metrics["chosen"] == "mean"


def test_offsets_are_fitted_on_the_reserve_and_scored_on_other_groups(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=60)
    run.make(settings=Vote(use="mean+offsets", kinds=["mean", "mean+offsets"], draws=100))
    votes, scores = read_json(tmp_path / "ensemble/votes.json"), run.metrics["reserve"]["votes"]
    raw = mean_of_members(run, "reserve", TWO)
    reserve = run.votes("reserve").set_index("image_id")
    logs = np.log(raw.loc[reserve.index].to_numpy()) + np.asarray(votes["mean+offsets"]["offsets"])
    optimistic = f1_score(reserve["label"], logs.argmax(axis=1), labels=range(6), average="macro", zero_division=0)
    assert optimistic > scores["mean"]["macro_f1"]
    assert scores["mean+offsets"]["macro_f1"] < optimistic


@pytest.mark.parametrize(
    ("spoil", "phrase"),
    [
        (lambda frame: frame[frame["image_id"] != "000003/reserve"], "1 ids of the reserve are missing"),
        (lambda frame: frame.assign(label=frame["label"].replace(0, 1)), "have another label than in folds.parquet"),
    ],
)
def test_predictions_that_do_not_fit_the_reserve_are_refused(tmp_path, spoil, phrase):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.member("reserve", "resnet", 1, spoil=spoil)
    run.refused(phrase)


def test_other_weights_on_the_reserve_are_refused(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.member("reserve", "resnet", 1, record_with={"weights_sha256": "others"})
    run.refused("predicted with other weights")


def test_each_new_set_of_scores_is_a_look(tmp_path):
    path = tmp_path / "looks.json"
    assert [count_looks(path, scores) for scores in ({"f1": 1.0}, {"f1": 1.0}, {"f1": 0.5}, {"f1": 1.0})] == [
        1,
        1,
        2,
        2,
    ]
    run = Run(tmp_path, models=TWO, reserve=30)
    run.make()
    run.make()
    assert run.metrics["reserve"]["looks"] == 1
    run.make(settings=Vote(use="geometric", kinds=["mean"], draws=100))
    assert run.metrics["reserve"]["looks"] == 2
    assert pd.notna(run.metrics["reserve"]["ensemble"]["log_loss"])
