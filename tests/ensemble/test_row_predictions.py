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
from support.finished_run import VOTES, finished_run
from support.member_predictions import TWO


def macro_f1(found: RowPredictions, name: str) -> float:
    labels, groups = found.table["label"].to_numpy(), pd.factorize(found.table["profile"])[0]
    own = found.rows[name]
    return scores(group_sums(labels, own.probabilities, groups, len(found.label_space.classes), own.codes))["macro_f1"]


@pytest.mark.parametrize(
    ("other", "left_out"), [({}, ["mean+offsets"]), ({"repeats": 2}, ["mean+offsets"]), ({"holdout": True}, [])]
)
def test_out_of_fold_rows_have_the_nested_scores_of_the_leaderboard(
    tmp_path: Path, other: dict, left_out: list[str]
) -> None:
    """Offsets that fit single members are left out; with a hold-out, one member is behind a test image as well."""
    run = finished_run(tmp_path, models=TWO, **other)
    found, oof = read_rows(tmp_path, seed=1), run.metrics["oof"]
    assert found.base == "oof"
    votes = [f"vote {kind}" for kind in simplest_first(oof["votes"]) if kind not in left_out]
    assert list(found.rows) == [*votes, "model lite0", "model resnet"]
    for name in votes:
        assert macro_f1(found, name) == oof["votes"][name.removeprefix("vote ")]["macro_f1"]
    for model, scored in oof["models"].items():
        assert macro_f1(found, f"model {model}") == pytest.approx(scored["macro_f1"])
    assert found.submitted == run.metrics["chosen"]
    assert list(found.left_out) == [f"vote {kind}" for kind in left_out]
    assert found.like_test == (not left_out)


def test_on_the_reserve_rows_are_means_of_all_members(tmp_path: Path) -> None:
    run = finished_run(tmp_path, models=TWO, reserve=18)
    found = read_rows(tmp_path, seed=1)
    assert (found.base, found.like_test, found.left_out, len(found.table)) == ("reserve", True, {}, 18)
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
    assert found.left_out["vote greedy"] == "votes with predictions from elsewhere"
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


def test_a_submitted_vote_is_a_row_whatever_it_fits(tmp_path: Path) -> None:
    finished_run(tmp_path, settings=VOTES.model_copy(update={"use": "mean+offsets"}), models=TWO)
    found = read_rows(tmp_path)
    assert found.submitted == "mean+offsets" and "vote mean+offsets" in found.rows
    assert not found.like_test
