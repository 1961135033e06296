"""The rows of a finished run, predicted again from the members' files: with the scores of its leaderboard."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.ensemble.methods import simplest_first
from foldvote.ensemble.row_predictions import RowPredictions, read_rows
from foldvote.errors import UserError
from foldvote.evaluation.bootstrap import group_sums, scores
from foldvote.io.files import read_json, write_json
from support.finished_run import finished_run
from support.member_predictions import TWO


def macro_f1(found: RowPredictions, name: str) -> float:
    labels, groups = found.table["label"].to_numpy(), pd.factorize(found.table["profile"])[0]
    own = found.rows[name]
    return scores(group_sums(labels, own.probabilities, groups, len(found.label_space.classes), own.codes))["macro_f1"]


@pytest.mark.parametrize("other", [{}, {"repeats": 2}, {"holdout": True}])
def test_out_of_fold_rows_have_the_nested_scores_of_the_leaderboard(tmp_path: Path, other: dict) -> None:
    run = finished_run(tmp_path, models=TWO, **other)
    found, oof = read_rows(tmp_path, seed=1), run.metrics["oof"]
    assert found.base == "oof"
    votes = [f"vote {kind}" for kind in simplest_first(oof["votes"])]
    assert list(found.rows) == [*votes, "model lite0", "model resnet"]
    for kind, scored in oof["votes"].items():
        assert macro_f1(found, f"vote {kind}") == scored["macro_f1"]
    for model, scored in oof["models"].items():
        assert macro_f1(found, f"model {model}") == pytest.approx(scored["macro_f1"])
    assert found.submitted == run.metrics["chosen"]
    assert not found.left_out


def test_on_the_reserve_rows_are_means_of_all_members(tmp_path: Path) -> None:
    run = finished_run(tmp_path, models=TWO, reserve=18)
    found = read_rows(tmp_path, seed=1)
    assert (found.base, len(found.table)) == ("reserve", 18)
    for kind, scored in run.metrics["reserve"]["votes"].items():
        assert macro_f1(found, f"vote {kind}") == scored["macro_f1"]
    for model, scored in run.metrics["reserve"]["models"].items():
        assert macro_f1(found, f"model {model}") == pytest.approx(scored["macro_f1"])
    assert read_rows(tmp_path, seed=1, use_reserve=False).base == "oof"


def test_a_vote_of_what_no_member_predicts_is_left_out(tmp_path: Path) -> None:
    finished_run(tmp_path, models=TWO)
    votes = tmp_path / "ensemble/votes.json"
    fitted = read_json(votes)
    fitted["greedy"]["candidates"].append("elsewhere/identity")
    write_json(votes, fitted)
    found = read_rows(tmp_path)
    assert found.left_out == ("vote greedy",)
    assert "vote greedy" not in found.rows and "vote mean" in found.rows


def test_predictions_of_another_split_and_missing_ones_are_one_line_each(tmp_path: Path) -> None:
    run = finished_run(tmp_path, models=TWO)
    run.path("oof", "lite0", 1).unlink()
    with pytest.raises(UserError, match="model lite0 fold 1") as caught:
        read_rows(tmp_path)
    assert all("\n" not in fault for fault in caught.value.faults)
    with pytest.raises(UserError, match="holds no finished run"):
        read_rows(tmp_path / "none")


def test_probabilities_are_rows_that_sum_to_one(tmp_path: Path) -> None:
    finished_run(tmp_path, models=TWO)
    for own in read_rows(tmp_path).rows.values():
        np.testing.assert_allclose(own.probabilities.sum(axis=1), 1, atol=1e-6)
