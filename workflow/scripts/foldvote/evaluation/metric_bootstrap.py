"""The scores of several sets of predictions in any metrics, and their scores in bootstrap draws of groups."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from foldvote.evaluation.bootstrap import METRICS, bootstrap, draw_totals_of_rows, drawn_units, group_sums, scores
from foldvote.evaluation.metric_registry import Answers, Metric, ranked_classes
from foldvote.evaluation.ranking import mean_of_known

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Scored:
    """The scores of one set of predictions.

    Attributes:
        points: by metric; NaN where a score is not defined, or the user's own fails.
        draws: by metric the scores in each draw, float64 (draws,); a draw in which the score is not defined has that of
            all images.
    """

    points: dict[str, float]
    draws: dict[str, Array]


def score_rows(
    rows: Mapping[str, Answers],
    groups: Codes,
    label_space: LabelSpace,
    metrics: Sequence[Metric],
    draws: int,
    seed: int,
) -> dict[str, Scored]:
    """Score several predictions of the same images in bootstrap.METRICS and in some metrics more.

    All metrics have the same draws of groups; those that cannot be had from sums have fewer of them
    (Metric.most_draws).

    Args:
        rows: the predictions by a name.
        groups: the code of each image's group, shape (images,), from 0 up.
        label_space: the classes.
        metrics: what is scored beside bootstrap.METRICS.
        draws: number of bootstrap draws.
        seed: the run's seed.
    """
    classes = len(label_space.classes)
    sums = {
        name: group_sums(own.labels, own.probabilities, groups, classes, own.predicted) for name, own in rows.items()
    }
    drawn = bootstrap(sums, draws, seed)
    found = {name: Scored(scores(sums[name]), dict(drawn[name])) for name in rows}
    for metric in metrics:
        if metric.name in METRICS:
            continue
        for name, own in rows.items():
            found[name].points[metric.name] = metric.value_or_nan(own, label_space)
        for name, values in metric_draws(rows, groups, label_space, metric, draws, seed).items():
            point = found[name].points[metric.name]
            found[name].draws[metric.name] = np.where(np.isfinite(values), values, point)
    return found


def points_of(answers: Answers, label_space: LabelSpace, metrics: Sequence[Metric]) -> dict[str, float]:
    """The scores in bootstrap.METRICS and in some metrics more, without draws.

    Args:
        answers: the predictions.
        label_space: the classes.
        metrics: what is scored in addition.

    Raises:
        UserError: if the user's own metric fails.
    """
    everyone = np.zeros(len(answers.labels), np.int64)
    sums = group_sums(answers.labels, answers.probabilities, everyone, answers.classes, answers.predicted)
    return scores(sums) | {one.name: one.value(answers, label_space) for one in metrics if one.name not in METRICS}


def metric_draws(
    rows: Mapping[str, Answers], groups: Codes, label_space: LabelSpace, metric: Metric, draws: int, seed: int
) -> dict[str, Array]:
    """The scores in each draw by row, float64 (draws,); NaN where the score of a draw is not defined.

    Args:
        rows: the predictions by a name.
        groups: the code of each image's group, shape (images,), from 0 up.
        label_space: the classes.
        metric: none of bootstrap.METRICS.
        draws: number of bootstrap draws; a metric that is computed anew in each takes metric.most_draws at most.
        seed: the run's seed.
    """
    draws = min(draws, metric.most_draws or draws)
    views = {name: metric.view(own, label_space) for name, own in rows.items()}
    known = {name: view for name, view in views.items() if view is not None}
    if metric.columns is not None and metric.of_sums is not None:
        number = int(groups.max()) + 1
        sums = {
            name: np.stack(
                [np.bincount(groups, column, number) for column in metric.columns(own)], axis=1, dtype=np.float64
            )
            for name, (own, _) in known.items()
        }
        totals = draw_totals_of_rows(sums, draws, seed)
        found = {name: metric.of_sums(totals[name]) for name in known}
    else:
        unit, times = drawn_units(groups, draws, seed)
        found = {name: _draws_anew(metric, *own, unit, times) for name, own in known.items()}
    return {name: found.get(name, np.full(draws, np.nan)) for name in rows}


def _draws_anew(
    metric: Metric, answers: Answers, label_space: LabelSpace, unit: npt.NDArray[np.intp], times: Array
) -> Array:
    """The scores in each draw of a metric that cannot be had from sums, float64 (draws,).

    Args:
        metric: the metric.
        answers: the predictions.
        label_space: their classes.
        unit: the unit of each image that is drawn as a whole, int (images,).
        times: how often each unit is drawn, float64 (draws, units).
    """
    if metric.curve is None:
        assert metric.weighted is not None
        score = metric.weighted(answers, label_space)
        return np.array([_or_nan(score, of_draw[unit]) for of_draw in times])
    by_class = [
        [metric.curve(positive, negative) for positive, negative in of.counts_of_draws(unit, times)]
        for of in ranked_classes(answers)
    ]
    return np.array([mean_of_known(values) for values in np.array(by_class).T])


def _or_nan(score: Callable[[Array], float], weights: Array) -> float:
    """The score, or NaN where the user's own metric fails, as many do without images of some class."""
    try:
        return score(weights)
    except UserError:
        return float("nan")
