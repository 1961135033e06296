"""Which images a report shows, and in what order."""

from pathlib import Path

import numpy as np
import pytest

from foldvote.report.results.gallery import (
    MOST_OF_ONE,
    ReportGallery,
    build_gallery,
    confused_pairs,
)
from foldvote.report.results.inputs import RunResults, read_run
from support.report_run import Made


def shown(outcome: RunResults) -> ReportGallery:
    return build_gallery(outcome, home=False, label="label")


def test_the_surest_mistakes_and_the_least_sure_right_answers_stand_first(either: tuple[Made, str, Path]) -> None:
    outcome = read_run(either[0].files)
    joint = shown(outcome).confusions[0]
    for (true, said), places in joint.cells.items():
        sure = outcome.probabilities[places, said]
        assert (np.diff(sure) >= 0).all() if true == said else (np.diff(sure) <= 0).all()
        rest = np.setdiff1d(np.flatnonzero((outcome.labels == true) & (outcome.predicted == said)), places)
        assert true != said or not len(rest) or outcome.probabilities[rest, said].min() >= sure.max()


def test_factors_are_judged_as_in_the_metrics(home: tuple[Made, str, Path]) -> None:
    outcome = read_run(home[0].files)
    for confusion in shown(outcome).confusions[1:]:
        right = np.trace(confusion.counts) / confusion.counts.sum()
        assert right == pytest.approx(outcome.metrics["oof"]["ensemble"]["factors"][confusion.name]["accuracy"])


def test_top_losses_are_the_least_likely_truths_and_not_of_one_person_alone(home: tuple[Made, str, Path]) -> None:
    outcome = read_run(home[0].files)
    losses = shown(outcome).losses
    given = outcome.chance_of(outcome.labels)
    assert losses[0] == given.argmin()
    assert (np.diff(given[losses]) >= 0).all() and given[losses].max() < 0.5
    assert outcome.rows["profile"].iloc[losses].value_counts().max() <= MOST_OF_ONE


def test_pairs_count_images_and_persons(hostile: tuple[Made, str, Path]) -> None:
    outcome = read_run(hostile[0].files)
    joint = shown(outcome).confusions[0]
    pairs = confused_pairs(outcome, joint)
    for row in pairs.to_dict("records"):
        own = outcome.rows[(outcome.labels == row["true"]) & (outcome.predicted == row["said"])]
        assert (row["images"], row["persons"]) == (len(own), own["profile"].nunique())
        assert row["share"] == pytest.approx(len(own) / (outcome.labels == row["true"]).sum())
    assert pairs["images"].is_monotonic_decreasing
