"""The choice of the ensemble method: each is fitted, scored by nested cross-validation, and compared with the others.

Scoring a fitted method on the images that it was fitted on rewards the one with the most parameters (Cawley and
Talbot, "On over-fitting in model selection and subsequent selection bias in performance evaluation", JMLR 2010).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import Vote
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import MOST_FITTED, Candidates, subsample
from foldvote.ensemble.greedy_selection import Metric
from foldvote.ensemble.methods import UNFITTED, apply_vote, decide_vote, fit_vote, simplest_first, split_kind
from foldvote.errors import UserError
from foldvote.evaluation.bootstrap import BETTER, Comparison, bootstrap, compare, group_sums, scores
from foldvote.runtime.seeding import generator

Codes = npt.NDArray[np.integer]
PARTS = 5


@dataclass(frozen=True)
class NestedPredictions:
    """A vote on images that it was not fitted on.

    Attributes:
        probabilities: float64 (images, classes), rows sum to 1.
        codes: the classes chosen, int64 (images,).
    """

    probabilities: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]


def nested_cv(
    kind: str,
    candidates: Candidates,
    labels: Codes,
    folds: Codes,
    scheme: LabelSpace,
    seed: int,
    *,
    groups: Codes | None = None,
    metric: Metric = "log_loss",
) -> NestedPredictions:
    """Fit on all folds but one and apply on that one, for every fold; a kind that fits nothing is applied at once.

    Args:
        kind: as in `methods.fit_vote`, like the other arguments.
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,). Those of a fold never influence the rows of that fold.
        folds: the fold of each image, shape (images,), at least two different ones, none below 0; `nested_parts` gives
            them for any split.
        scheme: the classes.
        seed: the run's seed.
        groups: a code an image.
        metric: what best_model and greedy improve.

    Raises:
        UserError: as `methods.fit_vote` does.
        ValueError: if the folds do not fit.
    """
    labels, folds = np.asarray(labels), np.asarray(folds)
    if kind in UNFITTED:
        probabilities = apply_vote(candidates, fit_vote(kind, candidates, labels, scheme, seed), scheme)
        return NestedPredictions(probabilities, probabilities.argmax(axis=1))
    known = np.unique(folds)
    if folds.shape != labels.shape or len(known) < 2 or known[0] < 0:
        raise ValueError(f"folds {known.tolist()} of shape {folds.shape}: expected two or more, one for each image")
    probabilities = np.empty((candidates.images, candidates.classes))
    codes = np.empty(candidates.images, np.int64)
    for fold in known:
        out, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        given = {"folds": folds, "groups": groups, "metric": metric, "rows": rest}
        params = fit_vote(kind, candidates, labels, scheme, seed, **given)
        probabilities[out] = apply_vote(candidates.rows(out), params, scheme)
        codes[out] = decide_vote(probabilities[out], params)
    return NestedPredictions(probabilities, codes)


def nested_parts(folds: Codes, groups: Codes, seed: int, parts: int = PARTS) -> npt.NDArray[np.int64]:
    """The folds themselves where there are two or more and every image is in one, else parts of the groups.

    A hold-out has one fold, and some images may be in none (-1): there the models saw none of the images that are
    voted on either, and any split by groups is as honest.
    """
    known = np.unique(np.asarray(folds))
    if len(known) >= 2 and known[0] >= 0:
        return np.asarray(folds, np.int64)
    return split_groups(groups, parts, seed)


def split_groups(groups: Codes, parts: int, seed: int) -> npt.NDArray[np.int64]:
    """Whole groups dealt to parts of about equal size, the same whatever the order of the images.

    Args:
        groups: a code an image, shape (images,).
        parts: how many; as many as there are groups where these are fewer.
        seed: the run's seed.

    Returns:
        The part of each image, int64 (images,), 0 to parts - 1.

    Raises:
        UserError: if there are fewer than two groups.
    """
    codes, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    parts = min(parts, len(codes))
    if parts < 2:
        raise UserError("vote: a fitted vote needs at least two persons among the validated images; choose the mean")
    order = generator(seed, "vote", "parts").permutation(len(codes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    turn = np.arange(len(codes)) % (2 * parts)  # there and back, so that no part always comes first
    dealt = np.empty(len(codes), np.int64)
    dealt[order] = np.minimum(turn, 2 * parts - 1 - turn)
    return dealt[place]


def one_standard_error_rule(
    kinds: Sequence[str],
    scores: Mapping[str, float],
    standard_errors: Mapping[str, float],
    *,
    higher_is_better: bool = True,
) -> str:
    """The simplest kind whose nested score is within one standard error of the best.

    The rule of Breiman, Friedman, Olshen and Stone, "Classification and regression trees" (1984), section 3.4.3, with
    the error of the paired difference, since all kinds vote on the same images.

    Args:
        kinds: in order of simplicity (methods.simplest_first).
        scores: nested score a kind.
        standard_errors: of the difference of each kind's score to the best one's; that of the best is not used.
        higher_is_better: False for a loss.

    Raises:
        ValueError: if there is no kind, or a score or an error is no finite number.
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


Draws = Mapping[str, npt.NDArray[np.float64]]
_OF_SEVERAL_VOICES = ("best_model", "majority", "factor_weights", "class_weights")
_OF_SEVERAL_CANDIDATES = (*_OF_SEVERAL_VOICES, "geometric", "rank", "tempered", "greedy", "weights")


@dataclass(frozen=True)
class EvaluationRows:
    """The images that votes are compared on.

    Attributes:
        labels: true codes, int (images,).
        folds: the fold of each.
        groups: a code of the person of each, 0 to persons - 1.
    """

    labels: Codes
    folds: Codes
    groups: Codes

    def rows(self, chosen: Codes) -> "EvaluationRows":
        """Some of the images; their persons are numbered anew, so that sums by person hold these alone."""
        _, persons = np.unique(self.groups[chosen], return_inverse=True)
        return EvaluationRows(self.labels[chosen], self.folds[chosen], persons)


@dataclass(frozen=True)
class MethodResult:
    """One kind of vote in the contest.

    Attributes:
        kind: its name.
        params: what it fitted on all images, as plain JSON.
        nested: its scores, each image voted on by a fit on other persons.
        optimistic: its scores on the images that it was fitted on.
        draws: the nested scores in each draw of persons.
    """

    kind: str
    params: dict[str, Any]
    nested: dict[str, float]
    optimistic: dict[str, float]
    draws: Draws


@dataclass(frozen=True)
class MethodComparison:
    """How the kinds compare.

    Attributes:
        entries: the kinds in order of simplicity.
        chosen: the one that is used.
        images: on how many they were compared.
        against: how each compares with the one that is used.
        honest: the one that is used, on images that it was not fitted on: all of them.
    """

    entries: dict[str, MethodResult]
    chosen: str
    images: int
    against: dict[str, Comparison]
    honest: NestedPredictions


def applicable_methods(settings: Vote, candidates: Candidates, scheme: LabelSpace) -> list[str]:
    """The kinds that can differ from the mean for these candidates, the simplest first, and always the mean."""
    voices, out = len(set(candidates.models)), set()
    if voices < 2:
        out |= set(_OF_SEVERAL_VOICES)
    if len(candidates.names) < 2:
        out |= set(_OF_SEVERAL_CANDIDATES)
    if not scheme.factors:
        out.add("factor_weights")
    asked = {"mean", *settings.kinds, *([] if settings.use == "auto" else [settings.use])}
    return simplest_first(kind for kind in asked if split_kind(kind)[0] not in out or kind == settings.use)


def compare_methods(
    candidates: Candidates, images: EvaluationRows, scheme: LabelSpace, settings: Vote, seed: int
) -> MethodComparison:
    """Fit and score every kind of vote, and choose one.

    The choice: the simplest kind whose nested score is within one standard error of the paired difference of the
    best one's; or the kind that the settings name. Over 50,000 images it is held among a draw of whole persons
    (candidates.subsample): there a standard error is about a thousandth, and time no longer grows with the images.

    Args:
        candidates: out-of-fold probabilities.
        images: their labels, folds and persons.
        scheme: the classes.
        settings: kinds, score and number of draws.
        seed: the run's seed.

    Raises:
        UserError: if a kind cannot be fitted.
    """
    drawn = subsample(candidates.images, images.groups, seed, MOST_FITTED)
    whole = len(drawn) == candidates.images
    compared, judged = (candidates, images) if whole else (candidates.rows(drawn), images.rows(drawn))
    parts = nested_parts(judged.folds, judged.groups, seed)
    count, params, optimistic, sums, honest = candidates.classes, {}, {}, {}, {}
    for kind in applicable_methods(settings, candidates, scheme):
        honest[kind] = _run_nested(kind, compared, judged, parts, scheme, settings, seed)
        sums[kind] = group_sums(judged.labels, honest[kind].probabilities, judged.groups, count, honest[kind].codes)
        params[kind] = fit_vote(
            kind, compared, judged.labels, scheme, seed, folds=parts, groups=judged.groups, metric=settings.fit_by
        )
        fitted = apply_vote(compared, params[kind], scheme)
        codes = decide_vote(fitted, params[kind])
        optimistic[kind] = scores(group_sums(judged.labels, fitted, judged.groups, count, codes))
    draws = bootstrap(sums, settings.draws, seed)
    entries = {
        kind: MethodResult(kind, params[kind], scores(own), optimistic[kind], draws[kind]) for kind, own in sums.items()
    }
    chosen = settings.use if settings.use != "auto" else _choice(entries, settings.score)
    against = {kind: versus(entry, entries[chosen], settings.score) for kind, entry in entries.items()}
    of_all = honest[chosen]
    if not whole:
        parts = nested_parts(images.folds, images.groups, seed)
        of_all = _run_nested(chosen, candidates, images, parts, scheme, settings, seed)
    return MethodComparison(entries, chosen, compared.images, against, of_all)


def _run_nested(
    kind: str,
    candidates: Candidates,
    images: EvaluationRows,
    parts: Codes,
    scheme: LabelSpace,
    settings: Vote,
    seed: int,
) -> NestedPredictions:
    """A kind on images that it was not fitted on; arguments as in `compare_methods`, parts from `nested_parts`."""
    return nested_cv(kind, candidates, images.labels, parts, scheme, seed, groups=images.groups, metric=settings.fit_by)


def versus(one: MethodResult, other: MethodResult, score: str) -> Comparison:
    """The difference of two kinds' nested scores, over the same draws of persons."""
    points = (one.nested[score], other.nested[score])
    return compare(one.draws[score], other.draws[score], BETTER[score], points=points)


def _choice(entries: Mapping[str, MethodResult], score: str) -> str:
    higher = BETTER[score] == "higher"
    values = {kind: entry.nested[score] for kind, entry in entries.items()}
    best = (max if higher else min)(values, key=lambda kind: values[kind])
    errors = {
        kind: float(np.std(entry.draws[score] - entries[best].draws[score], ddof=1)) for kind, entry in entries.items()
    }
    return one_standard_error_rule(list(entries), values, errors, higher_is_better=higher)
