"""The scores of the leaderboard's rows: of the ensemble, its methods, models and members, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.metric_names import higher_is_better
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import own_classes, subsample
from foldvote.ensemble.group_parts import outer_folds
from foldvote.ensemble.model_predictions import ModelPredictions
from foldvote.ensemble.selection import EvaluationRows, MethodComparison, MethodResult
from foldvote.evaluation.bootstrap import METRICS, group_sums, scores
from foldvote.evaluation.calibration import calibrate_nested, fit_temperature, reliability
from foldvote.evaluation.intervals import reflected_interval
from foldvote.evaluation.metric_bootstrap import score_rows
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.evaluation.metrics import more_scores, score

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

_MOST_FOR_TEMPERATURE = 20_000  # images: one number needs no more


def score_with_intervals(
    rows: EvaluationRows,
    probabilities: Floats,
    label_space: LabelSpace,
    factors: Sequence[str] | None,
    draws: int,
    seed: int,
    metrics: Sequence[Metric] = (),
) -> dict[str, Any]:
    """All scores of some predictions, with 95 % intervals from a bootstrap over groups.

    Args:
        rows: the images' labels (codes of the task's classes) and groups.
        probabilities: of the task's classes, shape (images, classes).
        label_space: the task's classes.
        factors: those that the model learns; it is scored on their classes alone. None: on the task's classes.
        draws: number of bootstrap draws.
        seed: the run's seed.
        metrics: what is scored in addition.

    Returns:
        What `metrics.score` returns, and `brier`, `ece` and `intervals`; `temperature`, the one that would calibrate
        the predictions (above 1: they are overconfident); `factors_learnt` where only some are.
    """
    own_space, own_probabilities = own_classes(probabilities, factors, label_space)
    labels = _own_labels(rows.labels, factors, label_space)
    answers = Answers.of(labels, own_probabilities)
    found = answer_scores(answers, rows.groups, own_space, metrics, draws, seed)
    found["temperature"] = round(fit_temperature(own_probabilities, labels, _MOST_FOR_TEMPERATURE), 4)
    return found | ({"factors_learnt": list(factors)} if factors else {})


def answer_scores(
    answers: Answers,
    groups: Codes,
    label_space: LabelSpace,
    metrics: Sequence[Metric],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """All scores of some predictions: what `metrics.score` returns, `brier`, `ece`, `intervals` and those of `metrics`.

    Args:
        answers: the predictions.
        groups: the code of each image's group, shape (images,).
        label_space: the classes.
        metrics: what is scored in addition.
        draws: number of bootstrap draws.
        seed: the run's seed.
    """
    scored = score_rows({"": answers}, groups, label_space, metrics, draws, seed)[""]
    more = {name: known_value(scored.points[name]) for name in scored.points if name not in METRICS}
    found = score(answers.labels, answers.probabilities, label_space, answers.predicted) | more
    found |= {name: scored.points[name] for name in ("brier", "ece")}
    return found | {"intervals": intervals_of(scored.draws, scored.points)}


def method_scores(comparison: MethodComparison) -> dict[str, dict[str, Any]]:
    """Each method's nested scores with intervals, its optimistic scores, and its comparison with the chosen method."""
    return {
        kind: {
            "images": comparison.images,
            **result_scores(result),
            "optimistic": {name: known_value(value) for name, value in result.optimistic.items()},
            "against_chosen": comparison.against_chosen[kind]._asdict(),
        }
        for kind, result in comparison.results.items()
    }


def result_scores(result: MethodResult) -> dict[str, Any]:
    """A method's scores with intervals, and those of MORE_SCORES."""
    own = result.answers
    more = {} if own is None else more_scores(own.labels, own.probabilities, own.predicted)[0]
    points = {name: known_value(value) for name, value in result.nested.items()}
    return more | points | {"intervals": intervals_of(result.draws, result.nested)}


def model_scores(
    predictions: ModelPredictions,
    rows: EvaluationRows,
    label_space: LabelSpace,
    draws: int,
    seed: int,
    metrics: Sequence[Metric] = (),
) -> dict[str, Any]:
    """Each model's scores over all its folds; in `calibrated`, some of them after a temperature of its own.

    Args:
        predictions: the models' out-of-fold means.
        rows: labels, folds and groups of their images.
        label_space: the task's classes.
        draws: number of bootstrap draws.
        seed: the run's seed.
        metrics: what is scored in addition.
    """

    def scored(model: str) -> dict[str, Any]:
        probabilities, factors = predictions.mean_of(model), predictions.learnt[model]
        found = score_with_intervals(rows, probabilities, label_space, factors, draws, seed, metrics)
        return found | {"calibrated": _calibrated_scores(rows, probabilities, label_space, factors, seed)}

    return {model: scored(model) for model in predictions.models}


def calibration_scores(
    labels: Codes, before: Floats, after: Floats, method: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Log-loss, Brier score and expected calibration error before and after calibration, and reliability tables.

    Args:
        labels: true codes, shape (images,).
        before: the ensemble's probabilities, shape (images, classes).
        after: the same after a calibration that was fitted on other groups.
        method: how they were calibrated.

    Returns:
        A JSON-able dict, and the rows of ensemble/reliability.csv.
    """
    everyone = np.zeros(len(labels), np.int64)
    summary: dict[str, Any] = {"method": method}
    tables = []
    for name, probabilities in (("before", before), ("after", after)):
        points = scores(group_sums(labels, probabilities, everyone, probabilities.shape[1]))
        summary[name] = {metric: points[metric] for metric in ("log_loss", "brier", "ece")}
        tables.append(reliability(labels, probabilities).assign(calibration=name))
    return summary, pd.concat(tables, ignore_index=True)


def _calibrated_scores(
    rows: EvaluationRows, probabilities: Floats, label_space: LabelSpace, factors: Sequence[str] | None, seed: int
) -> dict[str, float]:
    """Log-loss, Brier score and calibration error after a temperature that is fitted on other groups."""
    drawn = subsample(len(probabilities), rows.groups, seed)
    own_space, before = own_classes(probabilities[drawn], factors, label_space)
    rows = rows.rows(drawn)
    labels = _own_labels(rows.labels, factors, label_space)
    after = calibrate_nested(before, labels, outer_folds(rows.folds, rows.groups, seed))
    points = scores(group_sums(labels, after, np.zeros(len(labels), np.int64), len(own_space.classes)))
    return {metric: points[metric] for metric in ("log_loss", "brier", "ece")}


def _own_labels(labels: Codes, factors: Sequence[str] | None, label_space: LabelSpace) -> Codes:
    """Labels as codes of the classes of some factors; None: as they are."""
    return label_space.restricted(factors)[1][labels] if factors else labels


def intervals_of(
    drawn: Mapping[str, npt.NDArray[np.float64]], points: Mapping[str, float]
) -> dict[str, list[float] | None]:
    """The 95 % interval of each score from its bootstrap draws; None of a score that is not defined.

    Args:
        drawn: by metric float64 (draws,).
        points: by metric the score of all images.
    """
    return {metric: _interval_of(metric, values, points[metric]) for metric, values in drawn.items()}


def _interval_of(metric: str, values: npt.NDArray[np.float64], point: float) -> list[float] | None:
    """The interval of one score, within the range that its draws show it to have."""
    if not np.isfinite(values).all():
        return None
    lowest, highest = 0.0 if values.min() >= 0 else -np.inf, np.inf
    if higher_is_better(metric) and values.max() <= 1:
        highest = 1.0
    return [round(end, 6) for end in reflected_interval(values, point, lowest, highest)]


def known_value(value: float) -> float | None:
    """The value; None for one that is not defined."""
    return float(value) if math.isfinite(value) else None
