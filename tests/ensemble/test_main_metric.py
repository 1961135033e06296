"""The main metric of a run: the first score of the leaderboard, with intervals, and what chooses the vote."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from foldvote.config.ensemble import Vote
from foldvote.ensemble.guests import GuestFiles
from foldvote.ensemble.headline import headline
from foldvote.ensemble.leaderboard import (
    COLUMNS,
    COST_COLUMNS,
    RESERVE_COLUMNS,
    TEST_COLUMNS,
    leaderboard_columns,
    summary,
)
from foldvote.errors import UserError
from foldvote.evaluation.metrics import MORE_SCORES
from support.member_predictions import CLASSES, PROBABILITIES, TWO, Run, answers_file

OF_MAIN = ("{}", "{}_low", "{}_high", "{}_over_folds", "optimistic_{}")


def auc(frame):
    """The mean ROC AUC over the classes that are present."""
    known = [code for code in range(len(CLASSES)) if 0 < (frame["label"] == code).sum() < len(frame)]
    return np.mean([roc_auc_score(frame["label"] == code, frame[PROBABILITIES[code]]) for code in known])


@pytest.mark.parametrize(
    "name",
    [
        *("macro_f1", "accuracy", "log_loss", "brier", "ece", "balanced_accuracy", "macro_precision", "macro_recall"),
        *("mcc", "f_beta-2", "top_k-2", "quadratic_kappa", "quadratic_kappa-age", "roc_auc", "roc_auc_weighted"),
        *("roc_auc_partial-0.1", "average_precision"),
    ],
)
def test_every_metric_can_come_first_have_intervals_and_choose_the_vote(tmp_path, name):
    run = Run(tmp_path, models=TWO, reserve=30, repeats=2, k=3)
    answers = answers_file(run, [(image_id, number % 6) for number, image_id in enumerate(run.test_ids)])
    settings = Vote(kinds=["mean", "geometric", "mean+offsets"], draws=100, score=name)
    run.make(metrics=[name], settings=settings, answers=answers)
    board, metrics = run.leaderboard, run.metrics
    assert board.columns[4:9].tolist() == [column.format(name) for column in OF_MAIN]
    assert len(set(board.columns)) == len(board.columns)
    rows = board[board["kind"] != "member"]
    for column in (name, f"{name}_low", f"{name}_high", f"reserve_{name}", f"reserve_{name}_low", f"test_{name}"):
        assert np.isfinite(rows[column].astype(float)).all(), column
    widths = rows[f"{name}_high"].astype(float) - rows[f"{name}_low"].astype(float)
    assert (widths >= 0).all() and (widths > 0).any()  # a score of 1 has no width
    assert float(board[name][0]) == pytest.approx(metrics["oof"]["ensemble"][name], abs=1e-6)
    assert metrics["metric"] == name and name in metrics["members_curve"]["forecast"]
    models = board.loc[board["kind"] == "model", name].astype(float)
    assert models.is_monotonic_increasing if name in ("log_loss", "brier", "ece") else models.is_monotonic_decreasing
    slices = pd.read_csv(tmp_path / "ensemble/slices.csv")
    assert name in slices or name in ("macro_f1",)


@pytest.mark.parametrize("name", ["roc_auc", "log_loss"])
def test_a_guest_is_scored_and_placed_by_the_main_metric(tmp_path, name):
    both = Run(tmp_path / "both", models=TWO, reserve=30)
    both.make(metrics=[name])
    tables = {"oof": both.votes("oof"), "test": both.votes("test"), "reserve": both.votes("reserve")}
    files = {}
    for part, table in tables.items():
        files[part] = tmp_path / f"{part}.csv"
        table[["image_id", *PROBABILITIES]].to_csv(files[part], index=False)
    run = Run(tmp_path / "run", models=TWO, reserve=30)
    run.make(metrics=[name], guests={"friend": GuestFiles(**files)})
    board = run.leaderboard
    assert tuple(board.columns) == leaderboard_columns(name, has_reserve=True, has_answers=False, has_guests=True)
    rows = board[board["kind"].isin(["model", "guest"])]
    assert "guest" in set(rows["kind"])
    for column in (name, f"{name}_low", f"{name}_high", f"reserve_{name}"):
        assert np.isfinite(rows[column].astype(float)).all()
    values = rows[name].astype(float)
    assert values.is_monotonic_increasing if name == "log_loss" else values.is_monotonic_decreasing
    assert "friend (guest" in summary(board, run.metrics)


def test_with_macro_f1_there_are_only_added_columns_before_the_costs(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.make(answers=answers_file(run, [(name, 0) for name in run.test_ids]))
    expected = COLUMNS + RESERVE_COLUMNS + TEST_COLUMNS + MORE_SCORES + COST_COLUMNS
    assert tuple(run.leaderboard.columns) == expected


def test_the_auc_of_the_leaderboard_is_that_of_the_tables(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.make(metrics=["roc_auc"])
    board = run.leaderboard
    assert float(board["roc_auc"][0]) == pytest.approx(auc(run.votes("oof")), abs=1e-6)
    assert float(board["reserve_roc_auc"][0]) == pytest.approx(auc(run.votes("reserve")), abs=1e-6)
    found = run.metrics["oof"]["ensemble"]
    oof = run.votes("oof")
    precision = [average_precision_score(oof["label"] == code, oof[PROBABILITIES[code]]) for code in range(6)]
    assert found["average_precision"] == pytest.approx(np.mean(precision))
    assert found["classes"][CLASSES[2]]["roc_auc"] == pytest.approx(
        roc_auc_score(oof["label"] == 2, oof[PROBABILITIES[2]])
    )
    assert set(found["factors"]["age"]) == {"accuracy", "macro_f1", "roc_auc", "quadratic_kappa"}
    assert headline(run.metrics)[0].startswith("one member: ROC AUC ")
    lines = summary(board, run.metrics).splitlines()
    assert lines[1].split()[:2] == ["ROC", "AUC"] and len({len(line) for line in lines[1:]}) == 1


SURE = "def sure(labels, probabilities, names):\n    return {sign}probabilities.max(axis=1).mean()\n"


@pytest.mark.parametrize(("sign", "chosen"), [("", "geometric"), ("-", "mean")])
def test_a_metric_of_ones_own_chooses_the_vote_on_the_reserve(tmp_path, sign, chosen):
    """The geometric mean of members is surer than their mean; which of them is better is up to the metric."""
    run = Run(tmp_path, models=TWO, reserve=40)
    path = tmp_path / "sureness.py"
    path.write_text(SURE.format(sign=sign), encoding="utf-8")
    settings = Vote(kinds=["mean", "geometric"], draws=100, score=str(path), calibration="none")
    run.make(metrics=[str(path)], metric_file=path, settings=settings)
    assert run.metrics["chosen"] == chosen
    board = run.leaderboard
    assert board.columns[4] == "sureness"
    expected = run.votes("oof")[PROBABILITIES].max(axis=1).mean()
    assert float(board["sureness"][0]) == pytest.approx(expected if sign == "" else -expected, abs=1e-6)


def test_a_metric_of_ones_own_that_fails_for_few_images_leaves_these_rows_empty(tmp_path):
    run = Run(tmp_path, models=TWO)
    path = tmp_path / "many.py"
    path.write_text("def many(labels, probabilities, names):\n    return 1 / (len(labels) > 6)\n", encoding="utf-8")
    settings = Vote(kinds=["mean"], draws=100, score=str(path))
    run.make(metrics=[str(path)], metric_file=path, settings=settings)
    board = run.leaderboard
    assert (board["many"] == "").tolist() == (board["kind"] == "member").tolist()
    path.write_text("def many(labels, probabilities, names):\n    return 1 / (len(labels) > 99)\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"many\.py failed: ZeroDivisionError: division by zero"):
        run.make(metrics=[str(path)], metric_file=path, settings=settings)


def test_a_score_that_is_not_defined_is_told_and_writes_nothing(tmp_path):
    run = Run(tmp_path, models=TWO)
    settings = Vote(kinds=["mean"], draws=100, score="quadratic_kappa-colour")
    with pytest.raises(UserError, match=r"vote.score: quadratic_kappa-colour is not defined .*choose another metric"):
        run.make(metrics=["quadratic_kappa-colour"], settings=settings)
    assert not (tmp_path / "ensemble").exists()
