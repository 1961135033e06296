"""What the submitted vote is worth, and what calibrates it: the reserve, which all members predict like test images.

Whatever is fitted on the reserve (the choice of a method, offsets of classes, a calibration) is scored on parts of it
that it was not fitted on; the parts are whole groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import Vote, split_end
from foldvote.config.metric_names import metric_key
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.class_offsets import offsets_of, predict_classes
from foldvote.ensemble.group_parts import PARTS, split_groups
from foldvote.ensemble.methods import apply_method, choose_classes
from foldvote.ensemble.scaling import Scaling, apply_scaling, fit_scaling
from foldvote.ensemble.selection import (
    EvaluationRows,
    MethodResult,
    NestedPredictions,
    check_defined,
    choose_method,
    surely_better,
)
from foldvote.evaluation.metric_bootstrap import score_rows
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.io.files import read_json, sha256_bytes, write_json

Params = Mapping[str, Any]


@dataclass(frozen=True)
class ReserveScores:
    """How the methods do on the reserve.

    Attributes:
        results: by name, in order of complexity. `params` has the offsets that are fitted on the reserve; `nested` are
            scores of the mean of all members, with offsets that were fitted on other groups.
        chosen: the method that is used.
        scaling: the calibration that is fitted on the whole reserve.
        crossed: the reserve as the submitted vote predicts it, choice, offsets and calibration fitted on other groups.
    """

    results: dict[str, MethodResult]
    chosen: str
    scaling: Scaling
    crossed: NestedPredictions


def score_on_reserve(
    candidates: Candidates,
    rows: EvaluationRows,
    fitted: Mapping[str, MethodResult],
    label_space: LabelSpace,
    settings: Vote,
    seed: int,
    metrics: Sequence[Metric] = (),
) -> ReserveScores:
    """Apply every method to the reserve, score it, choose one and calibrate it.

    Args:
        candidates: probabilities of the reserve, means over all folds.
        rows: its labels and groups.
        fitted: the methods as they were fitted on out-of-fold predictions.
        label_space: the classes.
        settings: the `vote` section.
        seed: the run's seed.
        metrics: what is scored beside bootstrap.METRICS.

    Raises:
        UserError: if the reserve has a single group, or the score of the settings is not defined on it.
    """
    parts = split_groups(rows.groups, PARTS, seed)
    own = {kind: result.params for kind, result in fitted.items()}
    params, predicted = predict_reserve(candidates, rows, own, label_space, seed)
    answers = {kind: Answers(rows.labels, vote.probabilities, vote.codes) for kind, vote in predicted.items()}
    scored = score_rows(answers, rows.groups, label_space, metrics, settings.draws, seed)
    if settings.use == "auto":
        check_defined(scored, metric_key(settings.score))
    results = {
        kind: MethodResult(kind, params[kind], found.points, fitted[kind].optimistic, found.draws, answers[kind])
        for kind, found in scored.items()
    }
    chosen = settings.use if settings.use != "auto" else _choose(results, metric_key(settings.score))
    scaling = fit_scaling(predicted[chosen].probabilities, rows.labels, settings.calibration, "reserve")
    choosing = [metric for metric in metrics if metric.name == metric_key(settings.score)]
    crossed = _cross_fit(predicted, rows, parts, label_space, settings, choosing, seed)
    return ReserveScores(results, chosen, scaling, crossed)


def predict_reserve(
    candidates: Candidates, rows: EvaluationRows, fitted: Mapping[str, Params], label_space: LabelSpace, seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, NestedPredictions]]:
    """Apply every method to the reserve; offsets are fitted to the mean of all members.

    Args:
        candidates: probabilities of the reserve, means over all folds.
        rows: its labels and groups.
        fitted: what each method has fitted, by its name.
        label_space: the classes.
        seed: the run's seed.

    Returns:
        By name the parameters, with offsets that are fitted on the whole reserve; and the predictions, with offsets
        that are fitted on other groups.

    Raises:
        UserError: if the reserve has a single group.
    """
    parts = split_groups(rows.groups, PARTS, seed)
    params, predicted = {}, {}
    for kind, own in fitted.items():
        probabilities = apply_method(candidates, own, label_space)
        params[kind], codes = _with_own_offsets(own, probabilities, rows.labels, parts)
        predicted[kind] = NestedPredictions(probabilities, codes)
    return params, predicted


def count_looks(path: Path, scored: Mapping[str, Any]) -> int:
    """Count how often the reserve was looked at: each new set of scores is a look, the same set again is none.

    Args:
        path: a JSON list of digests, made where there is none. It is no output of a rule, so that it survives reruns.
        scored: the scores of the reserve.

    Returns:
        The number of looks so far, this one included.
    """
    known = read_json(path) if path.exists() else []
    digest = sha256_bytes(repr(sorted(scored.items())).encode())
    if digest not in known:
        known = [*known, digest]
        write_json(path, known)
    return len(known)


_DRAWS = 500  # behind each choice on four parts


def _with_own_offsets(
    params: Params,
    probabilities: npt.NDArray[np.float64],
    labels: npt.NDArray[np.integer],
    parts: npt.NDArray[np.int64],
) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """The parameters with offsets that fit the mean of all members, and the classes by offsets of the other parts."""
    if "offsets" not in params:
        return dict(params), choose_classes(probabilities, params)
    codes, end = np.empty(len(labels), np.int64), split_end(params["kind"])[1]
    for part in np.unique(parts):
        out = parts == part
        codes[out] = predict_classes(probabilities[out], offsets_of(end, probabilities[~out], labels[~out]))
    return dict(params) | {"offsets": offsets_of(end, probabilities, labels)}, codes


def _choose(results: Mapping[str, MethodResult], score: str) -> str:
    """The mean, or a method that is surely better: a reserve has few groups, and many methods are compared on it."""
    return choose_method(surely_better(results, score), score)


def _cross_fit(
    predicted: Mapping[str, NestedPredictions],
    rows: EvaluationRows,
    parts: npt.NDArray[np.int64],
    label_space: LabelSpace,
    settings: Vote,
    metrics: Sequence[Metric],
    seed: int,
) -> NestedPredictions:
    """Each part as predicted by the method and the calibration that the other parts favour."""
    probabilities = np.empty(next(iter(predicted.values())).probabilities.shape)
    codes = np.empty(len(parts), np.int64)
    for part in np.unique(parts):
        out = parts == part
        chosen = settings.use
        if chosen == "auto":
            others = {
                kind: Answers(rows.labels[~out], own.probabilities[~out], own.codes[~out])
                for kind, own in predicted.items()
            }
            draws = min(settings.draws, _DRAWS)
            scored = score_rows(others, rows.groups[~out], label_space, metrics, draws, seed)
            check_defined(scored, metric_key(settings.score))
            found = {kind: MethodResult(kind, {}, own.points, {}, own.draws) for kind, own in scored.items()}
            chosen = _choose(found, metric_key(settings.score))
        vote = predicted[chosen]
        scaling = fit_scaling(vote.probabilities[~out], rows.labels[~out], settings.calibration, "reserve")
        probabilities[out] = apply_scaling(vote.probabilities[out], scaling)
        codes[out] = vote.codes[out]
    return NestedPredictions(probabilities, codes)
