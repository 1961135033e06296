"""Which images a report shows, and in what order."""

from pathlib import Path

import numpy as np
import pytest

from foldvote.config.data import layout_section
from foldvote.data.layouts.registry import layout_of
from foldvote.report.results.gallery import (
    MOST_PER_PERSON,
    ReportGallery,
    build_gallery,
    confused_pairs,
)
from foldvote.report.results.inputs import RunResults, read_run
from support.report_run import TABLE, Made


def shown(run: RunResults) -> ReportGallery:
    return build_gallery(run, layout_of(layout_section(TABLE)))


def test_the_surest_mistakes_and_the_least_sure_right_answers_stand_first(either: tuple[Made, str, Path]) -> None:
    run = read_run(either[0].files)
    joint = shown(run).confusions[0]
    for (true, said), places in joint.cells.items():
        sure = run.probabilities[places, said]
        assert (np.diff(sure) >= 0).all() if true == said else (np.diff(sure) <= 0).all()
        rest = np.setdiff1d(np.flatnonzero((run.labels == true) & (run.predicted == said)), places)
        assert true != said or not len(rest) or run.probabilities[rest, said].min() >= sure.max()


def test_factors_are_judged_as_in_the_metrics(home: tuple[Made, str, Path]) -> None:
    run = read_run(home[0].files)
    for confusion in shown(run).confusions[1:]:
        right = np.trace(confusion.counts) / confusion.counts.sum()
        assert right == pytest.approx(run.metrics["oof"]["ensemble"]["factors"][confusion.name]["accuracy"])


def test_top_losses_are_the_least_likely_truths_and_not_of_one_person_alone(home: tuple[Made, str, Path]) -> None:
    run = read_run(home[0].files)
    losses = shown(run).losses
    given = run.probability_of(run.labels)
    assert losses[0] == given.argmin()
    assert (np.diff(given[losses]) >= 0).all() and given[losses].max() < 0.5
    assert run.rows["profile"].iloc[losses].value_counts().max() <= MOST_PER_PERSON


def test_pairs_count_images_and_persons(hostile: tuple[Made, str, Path]) -> None:
    run = read_run(hostile[0].files)
    joint = shown(run).confusions[0]
    pairs = confused_pairs(run, joint)
    for row in pairs.to_dict("records"):
        own = run.rows[(run.labels == row["true"]) & (run.predicted == row["predicted"])]
        assert (row["images"], row["persons"]) == (len(own), own["profile"].nunique())
        assert row["share"] == pytest.approx(len(own) / (run.labels == row["true"]).sum())
    assert pairs["images"].is_monotonic_decreasing
