"""Cost against score: which subsets are tried, what they cost, which are marked, and what a budget submits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.ensemble import Budget, Vote
from foldvote.ensemble.budget import choose_in_budget, honest_scores
from foldvote.ensemble.frontier import JOIN, frontier_table, member_draws, score_subsets
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.ensemble.selection import EvaluationRows
from foldvote.ensemble.single_members import Prices, read_prices
from foldvote.errors import UserError
from foldvote.evaluation.bootstrap import GroupSums, scores
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT
from foldvote.io.csv_files import read_csv
from foldvote.io.files import read_json, write_bytes, write_json
from foldvote.io.parquet import read_table
from foldvote.report.frontier import FrontierFiles, write_frontier
from support.member_predictions import CLASSES, LABEL_SPACE, Run
from support.simulated_members import single_members

VOTE = Vote(score="log_loss", draws=100)
SECONDS = {"lite0": 0.1, "noise": 0.4, "resnet": 0.3}


def frame_of(single, prices=None, vote=VOTE):
    models = sorted({model for model, _ in single.model_views})
    prices = prices or Prices(dict.fromkeys(models, 2.0), dict.fromkeys(models, 10.0))
    scored = score_subsets(single, prices, vote.score, 1)
    return scored, frontier_table(scored, single.part, vote.score, vote.draws, 1)


def marked(table, mark):
    (row,) = table[table[mark]].to_dict("records")
    return row["models"], row["views"], row["folds"]


def test_a_view_that_adds_nothing_and_a_model_of_noise_are_not_worth_their_cost():
    single = single_members({"good": 2.0, "other": 2.0, "noise": 0.0}, views=2, members=4, view_noise=0.0)
    _, table = frame_of(single)
    for mark in ("best", "cheapest"):
        models, views, folds = marked(table, mark)
        assert "noise" not in models
        assert views == "identity"
        assert folds > 1
    with_two = table[table["views"] == "identity+hflip"].reset_index(drop=True)
    with_one = table[table["views"] == "identity"].reset_index(drop=True)
    columns = ["models", "folds"]
    both = with_one.merge(with_two, on=columns, suffixes=("_one", "_two"))
    assert len(both) == len(with_one)
    assert np.allclose(both["log_loss_one"], both["log_loss_two"], atol=1e-6)
    assert np.allclose(both["ms_per_image_two"], 2 * both["ms_per_image_one"])
    assert (both["megabytes_two"] == both["megabytes_one"]).all()


def test_identical_members_make_the_single_cheapest_prediction_the_best():
    single = single_members({"a": 1.5, "b": 1.5}, views=2, members=3, view_noise=0.0, member_noise=0.0, same=True)
    prices = Prices({"a": 3.0, "b": 2.0}, {"a": 5.0, "b": 20.0})
    _, table = frame_of(single, prices)
    assert marked(table, "best") == marked(table, "cheapest") == ("b", "identity", 1)
    assert table["log_loss"].nunique() == 1
    assert (table["standard_error"] == 0).all()
    ahead = table[table["pareto"]]
    assert list(zip(ahead["models"], ahead["views"], ahead["folds"], strict=True)) == [
        ("b", "identity", 1),  # the fastest
        ("a", "identity", 1),  # the smallest
    ]


def test_more_members_are_better_and_cost_more_and_the_frontier_only_rises():
    single = single_members({"good": 1.5}, views=1, members=5)
    _, table = frame_of(single)
    assert table["folds"].tolist() == [1, 2, 3, 4, 5]
    assert table["log_loss"].is_monotonic_decreasing
    assert table["ms_per_image"].tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert table["megabytes"].tolist() == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert table["pareto"].all()
    assert (table["log_loss_low"] <= table["log_loss"]).all() and (table["log_loss"] <= table["log_loss_high"]).all()


def test_a_row_is_the_score_of_its_own_mean():
    single = single_members({"good": 1.5, "other": 1.0}, views=2, members=2)
    scored, _ = frame_of(single)
    whole = next(
        one for one in scored if len(one.subset.models) == 2 and one.subset.members == 2 and len(one.subset.views) == 2
    )
    mean = single.probabilities.astype(np.float64).mean(axis=(0, 1))
    losses = -np.log(mean[np.arange(len(mean)), single.rows.labels])
    assert whole.value("log_loss") == pytest.approx(losses.mean(), abs=1e-6)
    assert whole.value("accuracy") == pytest.approx((mean.argmax(axis=1) == single.rows.labels).mean())


def test_many_models_views_and_members_give_few_rows_that_hold_the_ends():
    single = single_members({f"m{number}": 1.0 for number in range(12)}, views=8, members=10, images=40)
    scored, table = frame_of(single)
    assert len(scored) <= 200
    sizes = {(len(one.subset.models), len(one.subset.views), one.subset.members) for one in scored}
    assert {(1, 1, 1), (12, 8, 10), (12, 1, 1), (1, 8, 10)} <= sizes
    assert table["best"].sum() == table["cheapest"].sum() == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_images_changes_no_score(seed, random):
    single = single_members({"a": 1.5, "b": 1.0, "c": 0.5}, views=1, members=2, images=40, seed=seed)
    order = list(range(40))
    random.shuffle(order)
    rows = EvaluationRows(single.rows.labels[order], single.rows.folds[order], single.rows.groups[order])
    other = replace(single, rows=rows, ids=single.ids.take(order), probabilities=single.probabilities[:, :, order])
    prices = Prices({"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 1.0, "b": 1.0, "c": 1.0})
    first, second = (frame_of(one, prices)[1] for one in (single, other))
    pd.testing.assert_frame_equal(first, second)


@given(st.integers(1, 30), st.data())
def test_draws_of_members_are_different_and_of_the_asked_size(count, data):
    number = data.draw(st.integers(1, count))
    draws = member_draws(count, number, 7)
    assert 1 <= len(draws) <= 3
    assert all(len(set(draw)) == number and max(draw) < count for draw in draws)


def test_the_best_that_fits_is_chosen_and_scored_by_what_other_groups_choose():
    single = single_members({"good": 2.0, "other": 1.9}, views=2, members=4)
    scored, table = frame_of(single)
    chosen = choose_in_budget(scored, Budget(ms_per_image=9.0), "log_loss")
    assert chosen.milliseconds <= 9.0
    fitting = table[table["ms_per_image"] <= 9.0]
    assert round(chosen.value("log_loss"), 6) == fitting["log_loss"].min()
    assert choose_in_budget(scored, Budget(megabytes=10.0), "log_loss").megabytes == 10.0
    honest = honest_scores(scored, Budget(ms_per_image=9.0), VOTE, 1)
    assert honest["log_loss"]["value"] >= chosen.value("log_loss") - 1e-6
    assert honest["log_loss"]["low"] < honest["log_loss"]["value"] < honest["log_loss"]["high"]


def test_a_choice_among_noise_is_not_scored_by_its_own_luck():
    single = single_members({f"m{number}": 0.0 for number in range(12)}, views=1, members=1, images=60)
    scored, _ = frame_of(single, vote=Vote(score="accuracy", draws=100))
    chosen = choose_in_budget(scored, Budget(ms_per_image=1e6), "accuracy")
    honest = honest_scores(scored, Budget(ms_per_image=1e6), Vote(score="accuracy", draws=100), 1)
    assert honest["accuracy"]["value"] < chosen.value("accuracy")


def test_a_budget_that_nothing_fits_names_the_cheapest():
    single = single_members({"good": 2.0, "other": 1.9}, views=2, members=4)
    scored, _ = frame_of(single, Prices({"good": 3.0, "other": 2.5}, {"good": 9.0, "other": 11.0}))
    with pytest.raises(UserError) as caught:
        choose_in_budget(scored, Budget(ms_per_image=1.0), "log_loss")
    (line,) = caught.value.faults
    assert "vote.budget: nothing fits ms_per_image: 1" in line
    assert "the cheapest is other with one fold and the view identity: 2.5 ms per image and 11 megabytes" in line


def frontier_of(run, vote):
    """Write the frontier of a run whose models have known prices; the rows of its table."""
    timings = sorted((run.root / "timings").rglob("*.json"))
    timings = [path for path in timings if path.parent.parent.name != "train"]
    for path in timings:
        model = path.parent.name.removeprefix("model=")
        write_json(path, {"seconds": SECONDS[model] * len(run.models[model]), "images": 100, "device": "cpu"})
    weights = [run.root / f"train/model={model}/fold={fold}/model.safetensors" for model, fold in run.members()]
    for path in weights:
        write_bytes(path, b"0" * 2_000_000)
    inputs = EnsembleInputs(
        oof=[run.path("oof", *member) for member in run.members()],
        test=[run.path("test", *member) for member in run.members()] if vote.budget else [],
        reserve=[run.path("reserve", *member) for member in run.members()] if run.reserve else [],
        timings=timings,
        weights=weights,
        folds=run.root / "folds.parquet",
        certificate=run.root / "certificate.json",
        classes=run.root / "classes.json",
    )
    out = run.root / "ensemble"
    files = FrontierFiles(
        out / "frontier.csv",
        out / "frontier.svg",
        out / "budget.json" if vote.budget else None,
        out / "budget.parquet" if vote.budget else None,
    )
    write_frontier(inputs, files, run.expected, vote, 1)
    return read_csv(files.table)


def test_the_files_of_a_run_with_a_reserve_give_the_submission_of_the_chosen_members(tmp_path):
    run = Run(tmp_path, models={"lite0": ("identity", "hflip"), "resnet": ("identity", "hflip")}, reserve=60)
    vote = Vote(score="log_loss", draws=100, calibration="temperature", budget=Budget(ms_per_image=8.0))
    table = frontier_of(run, vote)
    assert set(table["scored_on"]) == {"reserve"}
    assert set(table["folds"]) == {"1", "2", "3", "4"}
    assert float(table["ms_per_image"].astype(float).min()) == 1.0
    whole = table[(table["models"] == "lite0+resnet") & (table["views"] == "identity+hflip") & (table["folds"] == "4")]
    assert whole["ms_per_image"].astype(float).item() == pytest.approx(4 * 2 * (1 + 3))
    assert whole["megabytes"].astype(float).item() == pytest.approx(16)
    record = read_json(tmp_path / "ensemble/budget.json")
    assert record["ms_per_image"] <= 8.0
    assert record["calibration"]["source"] == "reserve"
    assert record["members_scored"] == len(record["folds"])
    row = table[table["budget"] == "True"].iloc[0]
    assert row["models"] == JOIN.join(record["models"]) and row["views"] == JOIN.join(record["views"])
    assert (tmp_path / "ensemble/frontier.svg").read_text().startswith("<?xml")
    votes = read_table(tmp_path / "ensemble/budget.parquet")
    assert votes["image_id"].tolist() == run.test_ids
    expected = np.zeros((len(votes), len(CLASSES)))
    for model in record["models"]:
        for fold in record["folds"]:
            frame = run.frame("test", model, fold)
            for view in record["views"]:
                logits = frame.loc[frame["view"] == view, [LOGIT + name for name in CLASSES]].to_numpy()
                expected += softmax(logits)
    expected /= expected.sum(axis=1, keepdims=True)
    assert votes["prediction"].tolist() == expected.argmax(axis=1).tolist()
    logs = np.log(expected) / record["calibration"]["temperature"]
    assert np.allclose(votes[[f"p_{name}" for name in CLASSES]], softmax(logs), atol=1e-6)


def test_factor_models_are_used_and_paid_together(tmp_path):
    views = ("identity", "hflip")
    run = Run(tmp_path, models={"lite0": views, "noise": views, "resnet": views}, reserve=40)
    for part in ("oof", "reserve", "test"):
        for model, factor in (("lite0", "mask"), ("resnet", "age")):
            for fold in range(4):
                run.member(part, model, fold, record_with={"factors": [factor]})
    vote = Vote(score="log_loss", draws=100, budget=Budget(megabytes=4.0))
    table = frontier_of(run, vote)
    assert set(table["models"]) == {"lite0*resnet", "noise", "lite0*resnet+noise"}
    one = table[(table["models"] == "lite0*resnet") & (table["views"] == "identity") & (table["folds"] == "1")]
    assert one[["networks", "forwards"]].to_numpy().tolist() == [["2", "2"]]
    assert one["ms_per_image"].astype(float).item() == pytest.approx(1 + 3)
    assert one["megabytes"].astype(float).item() == pytest.approx(2 + 2)
    chosen = read_json(tmp_path / "ensemble/budget.json")
    assert (chosen["models"], len(chosen["folds"])) in ((["lite0*resnet"], 1), (["noise"], 2), (["noise"], 1))
    assert len(read_table(tmp_path / "ensemble/budget.parquet")) == len(run.test_ids)


def test_a_member_that_was_trained_anew_since_is_refused(tmp_path):
    run = Run(tmp_path, models={"lite0": ("identity", "hflip")}, reserve=20)
    for fold in range(4):
        run.member("test", "lite0", fold, record_with={"weights_sha256": "others"})
    vote = Vote(draws=100, budget=Budget(ms_per_image=100))
    with pytest.raises(UserError, match="predicted with other weights"):
        frontier_of(run, vote)


def test_without_a_reserve_one_fold_is_scored_and_the_budget_is_filled_with_folds(tmp_path):
    run = Run(tmp_path, models={"lite0": ("identity", "hflip"), "resnet": ("identity", "hflip")})
    table = frontier_of(run, Vote(score="log_loss", draws=100, budget=Budget(ms_per_image=8.5)))
    assert set(table["scored_on"]) == {"oof"}
    assert set(table["folds"]) == {"1"}
    record = read_json(tmp_path / "ensemble/budget.json")
    assert record["members_scored"] == 1
    cost = record["ms_per_image"] / len(record["folds"])
    assert len(record["folds"]) == min(4, int(8.5 // cost)) > 0
    assert record["calibration"]["method"] == "temperature"


def test_with_repeats_the_number_of_members_is_scored_out_of_fold_too(tmp_path):
    run = Run(tmp_path, models={"lite0": ("identity",)}, repeats=3)
    table = frontier_of(run, Vote(score="log_loss", draws=100))
    assert table["folds"].tolist() == ["1", "2", "3"]
    assert table["log_loss"].astype(float).is_monotonic_decreasing
    assert not (tmp_path / "ensemble/budget.json").exists()


def test_a_budget_that_nothing_fits_writes_nothing(tmp_path):
    run = Run(tmp_path, models={"lite0": ("identity",)}, reserve=20)
    with pytest.raises(UserError, match=r"nothing fits ms_per_image: 0\.1"):
        frontier_of(run, Vote(draws=100, budget=Budget(ms_per_image=0.1)))
    assert not (tmp_path / "ensemble").exists()


def test_a_timing_without_images_is_named(tmp_path):
    path = tmp_path / "timings/oof/model=lite0/fold=0.json"
    write_json(path, {"seconds": 1.0, "device": "cpu"})
    with pytest.raises(UserError, match="images is None"):
        read_prices([path], [], 1)


def test_pooled_draws_of_members_are_a_mean_of_their_sums():
    single = single_members({"good": 1.5}, views=1, members=4)
    scored, _ = frame_of(single)
    one = next(one for one in scored if one.subset.members == 1)
    draws = member_draws(4, 1, 1)
    alone = [one.subset.probabilities(single.mean_of(draw)) for draw in draws]
    hits = np.mean([(each.argmax(axis=1) == single.rows.labels).mean() for each in alone])
    assert one.value("accuracy") == pytest.approx(hits)
    assert scores(GroupSums(one.sums.values, one.sums.classes))["accuracy"] == pytest.approx(hits)
    assert len(LABEL_SPACE.classes) == one.sums.classes
