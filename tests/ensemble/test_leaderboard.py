"""The leaderboard: its rows, their order, and the table at the end of a run."""

import pytest

from foldvote.ensemble.leaderboard import COLUMNS, COST_COLUMNS, make_leaderboard, summary
from foldvote.ensemble.timings import read_timings
from foldvote.errors import UserError
from foldvote.evaluation.metrics import MORE_SCORES
from foldvote.io.files import write_json
from support.member_predictions import TWO, Run, answers_file


def test_leaderboard_has_a_row_for_the_ensemble_each_model_and_each_member(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    board, metrics = run.leaderboard, run.metrics["oof"]
    assert tuple(board.columns) == COLUMNS + MORE_SCORES + COST_COLUMNS
    assert board["kind"].tolist() == ["ensemble", "vote"] + ["model"] * 2 + ["member"] * 8
    models = board[board["kind"] == "model"]
    assert models["macro_f1"].astype(float).is_monotonic_decreasing
    assert set(models["model"]) == set(TWO)
    members = board[board["kind"] == "member"]
    assert list(zip(members["model"], members["fold"].astype(int), strict=True)) == run.members()
    assert board["images"].tolist() == ["24"] * 4 + ["6"] * 8
    assert board["fit_seconds"].tolist() == ["80.00"] * 2 + ["40.00"] * 2 + ["10.00"] * 8
    assert board["predict_seconds"].tolist() == ["4.00"] * 2 + ["2.00"] * 2 + ["0.50"] * 8
    assert board["macro_f1"][0] == f"{metrics['ensemble']['macro_f1']:.6f}"
    assert board["log_loss"].iloc[-1] == f"{metrics['members']['resnet']['3']['log_loss']:.6f}"


def test_models_stand_by_falling_score_whatever_their_names():
    scores = {"a": 0.2, "b": 0.9, "c": 0.9, "d": 0.5}
    numbers = {"images": 2, "accuracy": 0.5, "log_loss": 1.0, "ece": 0.1, "intervals": {"macro_f1": [0.1, 0.9]}}
    models = {model: numbers | {"macro_f1": value} for model, value in scores.items()}
    members = {model: {str(fold): own for fold in (10, 9)} for model, own in models.items()}
    metrics = {"oof": {"ensemble": models["a"], "models": models, "votes": {}, "members": members}}
    board = make_leaderboard(metrics, {("a", 9): {"train": 1.0}})
    assert board.loc[board["kind"] == "model", "model"].tolist() == ["b", "c", "d", "a"]
    assert board.loc[board["kind"] == "member", "fold"].tolist() == ["9", "10"] * 4
    assert board.loc[board["fit_seconds"] != "", ["model", "fold"]].to_numpy().tolist() == [["a", "9"]]


def test_summary_is_an_aligned_table_of_the_ensemble_and_its_models(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make(answers=answers_file(run, [(name, 0) for name in run.test_ids]))
    text = summary(run.leaderboard, run.metrics)
    lines = text.splitlines()
    assert lines[0] == "out-of-fold scores: 24 images, 6 classes"
    heads = [
        "macro-F1",
        "95 % of persons",
        "optimistic",
        "accuracy",
        "log-loss",
        "ECE",
        "test macro-F1",
        "test accuracy",
        "fit s",
        "predict s",
    ]
    assert " ".join(lines[1].split()) == " ".join(heads)
    assert lines[2].startswith("ensemble (mean) ")
    assert lines[3].startswith("vote mean ")
    assert {line.split(" (")[0] for line in lines[4:]} == set(TWO)
    assert "(4 folds)" in lines[4]
    assert len({len(line) for line in lines[1:]}) == 1
    assert f"{run.metrics['oof']['ensemble']['macro_f1']:.4f}" in lines[2]


def test_summary_shows_unknown_seconds_as_a_dash(tmp_path):
    run = Run(tmp_path, tests=0)
    run.make(timings=[])
    assert (run.leaderboard["fit_seconds"] == "").all()
    assert summary(run.leaderboard, run.metrics).splitlines()[2].split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("content", [{"seconds": -1}, {"seconds": "3"}, {"seconds": True}, {}, []])
def test_timings_that_are_no_seconds_are_refused(tmp_path, content):
    path = tmp_path / "timings/train/model=a/fold=0.json"
    write_json(path, content)
    with pytest.raises(UserError, match="not a number from 0 up"):
        read_timings([path])


def test_a_plan_marks_the_rows_of_its_models_and_names_what_is_left_out(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make(plan=dict.fromkeys(TWO, "3 of 4 epochs") | {"large": "left out"})
    board = run.leaderboard
    assert board.columns[-1] == "plan"
    assert board["plan"].tolist() == [""] * 2 + ["3 of 4 epochs"] * 10
    assert "runtime.max_hours: large: left out" in summary(board, run.metrics).splitlines()
