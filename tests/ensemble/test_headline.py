"""The words about a single member and the submitted vote."""

import pytest

from foldvote.ensemble.headline import budget_line, headline
from support.member_predictions import TWO, Run


def test_with_a_reserve_the_vote_is_measured_and_the_looks_are_counted(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.make()
    one, vote = headline(run.metrics)
    score = run.metrics["reserve"]["ensemble"]["macro_f1"]
    assert one.startswith("one member: macro-F1 ")
    assert vote.startswith(f"submitted vote: macro-F1 {score:.3f} (")
    assert vote.endswith("on the reserve of 30 people that no member saw; looked at once")


def test_a_main_metric_that_is_not_defined_is_told_as_such(tmp_path):
    run = Run(tmp_path, models=TWO, reserve=30)
    run.make()
    metrics = run.metrics | {"metric": "mine"}
    for scored in (metrics["oof"]["ensemble"], metrics["reserve"]["ensemble"]):
        scored["mine"] = scored["intervals"]["mine"] = None
    one, vote = headline(metrics)
    assert one.startswith("one member: mine not defined, out of fold")
    assert vote.startswith("submitted vote: mine not defined, on the reserve")


def test_with_repeats_it_is_forecast(tmp_path):
    run = Run(tmp_path, models=TWO, repeats=3)
    run.make()
    one, vote = headline(run.metrics)
    assert one.startswith("3 members: macro-F1 ")
    assert "a forecast for 12 members from the scores of 1 to 3" in vote
    curve = run.metrics["members_curve"]
    assert [point["members"] for point in curve["points"]] == [1, 2, 3]
    last = curve["points"][-1]["macro_f1"]["value"]
    assert last == pytest.approx(run.metrics["oof"]["votes"]["mean"]["macro_f1"])


def test_with_neither_it_says_how_to_measure_it(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    assert "members_curve" not in run.metrics
    assert headline(run.metrics)[1] == (
        "submitted vote: not measured, usually higher than that of one member; to measure it keep people out of all "
        "folds (folds: {reserve: 0.15}), or set folds.repeats"
    )


def test_a_budget_says_what_is_submitted_what_it_costs_and_where_its_score_is_from():
    record = {
        "models": ["lite0", "resnet"],
        "views": ["identity", "hflip"],
        "folds": [0, 3],
        "ms_per_image": 18.25,
        "megabytes": 64.0,
        "scored_on": "reserve",
        "members_scored": 2,
        "scores": {"macro_f1": {"value": 0.61, "low": 0.55, "high": 0.66}},
    }
    assert budget_line(record) == (
        "submission within the budget: lite0+resnet, view identity+hflip, folds 0, 3; 18.2 ms per image, 64 megabytes; "
        "macro-F1 0.610 (0.550 to 0.660) on the reserve"
    )
    alone = record | {"scored_on": "oof", "members_scored": 1, "folds": [2]}
    assert "fold 2;" in budget_line(alone)
    assert budget_line(alone).endswith("out of fold, with one member of each model per image")
