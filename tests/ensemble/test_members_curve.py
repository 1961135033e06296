"""The score by the number of members, and its forecast for all of them."""

import numpy as np
import pytest

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.members_curve import members_curve
from foldvote.ensemble.selection import EvaluationRows
from foldvote.evaluation.metrics import accuracy, log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

REPEATS, MEMBERS = 4, 20
SPACE = LabelSpace(("a", "b", "c", "d"))


def simulated(seed, members, persons=80, classes=4):
    draws = generator(seed, "curve")
    labels = np.repeat(draws.integers(0, classes, persons), 5)
    shared = 2 * np.eye(classes)[labels] + draws.normal(size=(len(labels), classes))
    probabilities = softmax(shared + draws.normal(size=(members, *shared.shape))).astype(np.float32)
    rows = EvaluationRows(labels, np.zeros(len(labels), int), np.repeat(np.arange(persons), 5))
    return [Candidates(("net/identity",), ("net",), own[None]) for own in probabilities], rows


@pytest.mark.parametrize("seed", range(4))
def test_the_forecast_holds_the_score_of_all_members(seed):
    members, rows = simulated(seed, MEMBERS)
    curve = members_curve(members[:REPEATS], rows, SPACE, MEMBERS, 200, 1)
    whole = np.mean([one.probabilities[0] for one in members], axis=0, dtype=np.float64)
    truth = {"accuracy": accuracy(rows.labels, whole.argmax(axis=1)), "log_loss": log_loss(rows.labels, whole)}
    assert curve["forecast"]["members"] == MEMBERS
    for metric, value in truth.items():
        forecast, first = curve["forecast"][metric], curve["points"][0][metric]["value"]
        assert forecast["low"] <= value <= forecast["high"]
        assert abs(forecast["value"] - value) < abs(first - value) / 2


def test_points_are_the_scores_of_the_means_of_so_many_members():
    members, rows = simulated(9, 3)
    points = members_curve(members, rows, SPACE, 15, 100, 1)["points"]
    own = [one.probabilities[0].astype(np.float64) for one in members]
    single = np.mean([log_loss(rows.labels, one) for one in own])
    assert [point["members"] for point in points] == [1, 2, 3]
    assert points[0]["log_loss"]["value"] == pytest.approx(single)
    assert points[2]["log_loss"]["value"] == pytest.approx(log_loss(rows.labels, np.mean(own, axis=0)))
    assert points[1]["log_loss"]["low"] < points[1]["log_loss"]["value"] < points[1]["log_loss"]["high"]


def test_one_repeat_has_no_curve():
    members, rows = simulated(1, 1)
    assert members_curve(members, rows, SPACE, 5, 100, 1) is None
