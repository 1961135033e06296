"""The choice of an ensemble method: each is scored by nested cross-validation and compared with the others.

Scoring a fitted method on the images that it was fitted on rewards the one with the most parameters (Cawley and
Talbot, "On over-fitting in model selection and subsequent selection bias in performance evaluation", JMLR 2010).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import OFFSETS, Vote, split_end
from foldvote.config.metric_names import higher_is_better, metric_key
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import MOST_FITTED, Candidates, subsample
from foldvote.ensemble.ensemble_method import Metric as FitMetric
from foldvote.ensemble.ensemble_method import Need
from foldvote.ensemble.group_parts import outer_folds
from foldvote.ensemble.methods import METHODS, apply_method, choose_classes, fit_method, simplest_first
from foldvote.errors import UserError
from foldvote.evaluation.intervals import Comparison, Direction, compare
from foldvote.evaluation.metric_bootstrap import Scored, points_of, score_rows
from foldvote.evaluation.metric_registry import Answers, Metric

Codes = npt.NDArray[np.integer]
SURELY_BETTER = 0.975  # share of the bootstrap draws


@dataclass(frozen=True)
class EvaluationRows:
    """The images that methods are compared on.

    Attributes:
        labels: true codes, int (images,).
        folds: the fold of each image, int (images,); -1: none.
        groups: the code of each image's group, int (images,), 0 to groups - 1.
    """

    labels: Codes
    folds: Codes
    groups: Codes

    def rows(self, chosen: Codes) -> "EvaluationRows":
        """Some of the images; their groups are numbered anew, so that sums by group hold these alone."""
        _, groups = np.unique(self.groups[chosen], return_inverse=True)
        return EvaluationRows(self.labels[chosen], self.folds[chosen], groups)


@dataclass(frozen=True)
class NestedPredictions:
    """A method's output for images that it was not fitted on.

    Attributes:
        probabilities: float64 (images, classes), rows sum to 1.
        codes: the classes chosen, int64 (images,).
    """

    probabilities: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class MethodResult:
    """The scores of one method.

    Attributes:
        kind: its name, as in `vote.kinds`.
        params: what it fitted on all images, as plain JSON.
        nested: its scores in nested cross-validation, by metric.
        optimistic: its scores on the images that it was fitted on.
        draws: the nested scores in each bootstrap draw of groups, by metric float64 (draws,).
        answers: what the nested scores are of; None where only scores are compared.
    """

    kind: str
    params: dict[str, Any]
    nested: dict[str, float]
    optimistic: dict[str, float]
    draws: Mapping[str, npt.NDArray[np.float64]]
    answers: Answers | None = None


@dataclass(frozen=True)
class MethodComparison:
    """How the methods compare.

    Attributes:
        results: by name, in order of complexity.
        chosen: the method that is used.
        images: on how many images they were compared.
        against_chosen: how each compares with the one that is used.
        nested: the nested predictions of the one that is used, for all images.
    """

    results: dict[str, MethodResult]
    chosen: str
    images: int
    against_chosen: dict[str, Comparison]
    nested: NestedPredictions


def compare_methods(
    candidates: Candidates,
    evaluation: EvaluationRows,
    label_space: LabelSpace,
    settings: Vote,
    seed: int,
    choose: Callable[[Mapping[str, MethodResult]], str] | None = None,
    metrics: Sequence[Metric] = (),
) -> MethodComparison:
    """Fit and score every method, and choose one.

    The choice is that of `choose`, or the method that the settings name. Over 50,000 images, methods
    are compared on a draw of whole groups (candidates.subsample): there a standard error is about a thousandth, and the
    time no longer grows with the images.

    Args:
        candidates: out-of-fold probabilities.
        evaluation: labels, folds and groups of their images.
        label_space: the classes.
        settings: methods, score and number of bootstrap draws.
        seed: the run's seed.
        choose: gives the name of the method that is used; None: `choose_safely`, where the settings name none.
        metrics: what is scored beside bootstrap.METRICS, with the score of the settings unless it is one of these.

    Raises:
        UserError: if a method cannot be fitted, or the score is not defined for these images.
    """
    drawn = subsample(candidates.images, evaluation.groups, seed, MOST_FITTED)
    is_whole = len(drawn) == candidates.images
    compared, rows = (candidates, evaluation) if is_whole else (candidates.rows(drawn), evaluation.rows(drawn))
    folds = outer_folds(rows.folds, rows.groups, seed)
    nested, answers, params, optimistic = {}, {}, {}, {}
    for kind in applicable_methods(settings, candidates, label_space):
        nested[kind] = _run_nested(kind, compared, rows, folds, label_space, settings, seed)
        answers[kind] = Answers(rows.labels, nested[kind].probabilities, nested[kind].codes)
        params[kind] = fit_method(
            kind, compared, rows.labels, label_space, seed, folds=folds, groups=rows.groups, metric=settings.fit_by
        )
        fitted = apply_method(compared, params[kind], label_space)
        codes = choose_classes(fitted, params[kind])
        optimistic[kind] = points_of(Answers(rows.labels, fitted, codes), label_space, metrics)
    scored = score_rows(answers, rows.groups, label_space, metrics, settings.draws, seed)
    score = metric_key(settings.score)
    check_defined(scored, score)
    results = {
        kind: MethodResult(kind, params[kind], own.points, optimistic[kind], own.draws, answers[kind])
        for kind, own in scored.items()
    }
    if choose is not None:
        chosen = choose(results)
    else:
        chosen = settings.use if settings.use != "auto" else choose_safely(results, score)
    against = {kind: compare_results(result, results[chosen], score) for kind, result in results.items()}
    nested_of_all = nested[chosen]
    if not is_whole:
        folds = outer_folds(evaluation.folds, evaluation.groups, seed)
        nested_of_all = _run_nested(chosen, candidates, evaluation, folds, label_space, settings, seed)
    return MethodComparison(results, chosen, compared.images, against, nested_of_all)


def applicable_methods(settings: Vote, candidates: Candidates, label_space: LabelSpace) -> list[str]:
    """The methods of the settings that can differ from the mean for these candidates; the mean always.

    Returns:
        Their names in order of complexity. The method in `use` is among them, whatever it needs.
    """
    unmet = set()
    if len(set(candidates.models)) < 2:
        unmet.add(Need.SEVERAL_MODELS)
    if len(candidates.names) < 2:
        unmet.add(Need.SEVERAL_CANDIDATES)
    if not label_space.factors:
        unmet.add(Need.FACTORS)
    if candidates.metadata is None:
        unmet.add(Need.METADATA)
    return simplest_first(
        kind for kind in settings.asked if kind == settings.use or not METHODS[split_end(kind)[0]].needs & unmet
    )


def nested_cv(
    kind: str,
    candidates: Candidates,
    labels: Codes,
    folds: Codes,
    label_space: LabelSpace,
    seed: int,
    *,
    groups: Codes | None = None,
    metric: FitMetric = "log_loss",
) -> NestedPredictions:
    """Fit on all folds but one and apply to that one, for every fold; a method that fits nothing is applied at once.

    Args:
        kind: the method's name, also with `+offsets` or `+expected`.
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,). Those of a fold never influence the rows of that fold.
        folds: the fold of each image, shape (images,), at least two different ones, none below 0; `outer_folds` gives
            them for any split.
        label_space: the classes.
        seed: the run's seed.
        groups: the code of each image's group, shape (images,); of many images, whole groups are drawn for the fit.
        metric: the score that best_model and greedy improve.

    Raises:
        UserError: if the method is not known, does not fit the classes, or its package is missing.
        ValueError: if the folds do not fit.
    """
    labels, folds = np.asarray(labels), np.asarray(folds)
    name, end = split_end(kind)
    if not METHODS[name].is_fitted and not end:
        params = fit_method(kind, candidates, labels, label_space, seed)
        probabilities = apply_method(candidates, params, label_space)
        return NestedPredictions(probabilities, choose_classes(probabilities, params))
    known = np.unique(folds)
    if folds.shape != labels.shape or len(known) < 2 or known[0] < 0:
        raise ValueError(f"folds {known.tolist()} of shape {folds.shape}: expected two or more, one for each image")
    probabilities = np.empty((candidates.images, candidates.classes))
    codes = np.empty(candidates.images, np.int64)
    for fold in known:
        out, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        params = fit_method(
            kind, candidates, labels, label_space, seed, folds=folds, groups=groups, metric=metric, rows=rest
        )
        probabilities[out] = apply_method(candidates.rows(out), params, label_space)
        codes[out] = choose_classes(probabilities[out], params)
    return NestedPredictions(probabilities, codes)


def one_standard_error_rule(
    kinds: Sequence[str],
    scores: Mapping[str, float],
    standard_errors: Mapping[str, float],
    *,
    higher_is_better: bool = True,
) -> str:
    """The simplest method whose nested score is within one standard error of the best.

    The rule of Breiman, Friedman, Olshen and Stone, "Classification and regression trees" (1984), section 3.4.3, with
    the error of the paired difference, because all methods predict the same images.

    Args:
        kinds: names of methods in order of complexity (methods.simplest_first).
        scores: the nested score of each.
        standard_errors: of the difference between each method's score and the best; that of the best is not used.
        higher_is_better: False for a loss.

    Raises:
        ValueError: if there is no method, or a score or an error is not a finite number.
    """
    sign = 1 if higher_is_better else -1
    numbers = [scores[kind] for kind in kinds]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"scores {numbers} must be finite, and at least one")
    best = max(kinds, key=lambda kind: sign * scores[kind])
    for kind in kinds:
        behind = sign * (scores[best] - scores[kind])
        error = 0.0 if kind == best else standard_errors[kind]
        if not (math.isfinite(error) and error >= 0):
            raise ValueError(f"the standard error of {kind} is {error}")
        if behind <= error:
            return kind
    return best


def choose_method(results: Mapping[str, MethodResult], score: str) -> str:
    """The method by the one-standard-error rule; standard errors are those of the paired bootstrap differences.

    Args:
        results: the methods in order of complexity.
        score: a metric of the results.
    """
    higher = higher_is_better(score)
    values = {kind: result.nested[score] for kind, result in results.items()}
    best = (max if higher else min)(values, key=lambda kind: values[kind])
    errors = {
        kind: float(np.std(result.draws[score] - results[best].draws[score], ddof=1))
        for kind, result in results.items()
    }
    return one_standard_error_rule(list(results), values, errors, higher_is_better=higher)


def choose_safely(results: Mapping[str, MethodResult], score: str) -> str:
    """The method where only out-of-fold predictions can tell, which are of single members: the mean, or a better one.

    Test images are predicted by the mean of all members, which is more often right and less certain than each of them.
    What a method gains on single members may be lost there. So the mean is left only for a method that is better in
    97.5 % of the bootstrap draws, and never for one that fits offsets to labels or the members' certainty. Offsets
    that follow from single members' probabilities alone are smaller than those of their mean, whose rare classes are
    the likeliest more rarely still: they err on the side of the likeliest class.

    Args:
        results: the methods in order of complexity, the mean among them.
        score: a metric of the results.
    """
    safe = {kind: result for kind, result in results.items() if kind == "mean" or is_safe(kind)}
    return choose_method(surely_better(safe, score), score)


def surely_better(results: Mapping[str, MethodResult], score: str) -> dict[str, MethodResult]:
    """The mean, and what is better than it in 97.5 % of the bootstrap draws."""
    return {
        kind: result
        for kind, result in results.items()
        if kind == "mean" or compare_results(result, results["mean"], score).better >= SURELY_BETTER
    }


def is_safe(kind: str) -> bool:
    """Whether what a method gains on single members can carry over to means of all: no certainty, no offset is fitted.

    Args:
        kind: its name, also with `+offsets` or `+expected`.
    """
    name, end = split_end(kind)
    return end != OFFSETS and not METHODS[name].fits_certainty


def compare_results(one: MethodResult, other: MethodResult, score: str) -> Comparison:
    """The difference of two methods' nested scores, over the same bootstrap draws."""
    points = (one.nested[score], other.nested[score])
    better: Direction = "higher" if higher_is_better(score) else "lower"
    return compare(one.draws[score], other.draws[score], better, points=points)


def check_defined(scored: Mapping[str, Scored], score: str) -> None:
    """Check that the methods can be compared by a score.

    Args:
        scored: the methods' scores.
        score: a metric.

    Raises:
        UserError: if the score of a method is no finite number.
    """
    undefined = [kind for kind, own in scored.items() if not math.isfinite(own.points[score])]
    if undefined:
        raise UserError(
            f"vote.score: {score} is not defined for the images that the methods are compared on "
            f"({', '.join(undefined)}); choose another metric, or look whether a class is missing"
        )


def _run_nested(
    kind: str,
    candidates: Candidates,
    evaluation: EvaluationRows,
    folds: Codes,
    label_space: LabelSpace,
    settings: Vote,
    seed: int,
) -> NestedPredictions:
    labels, groups = evaluation.labels, evaluation.groups
    return nested_cv(kind, candidates, labels, folds, label_space, seed, groups=groups, metric=settings.fit_by)
