"""The vote that fits a budget: the best mean of some models, members and views, and its predictions of test images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldvote.config.ensemble import Budget, Vote
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import PRODUCT_SIGN, candidates_of
from foldvote.ensemble.frontier import JOIN, SHOWN, ScoredSubset, Subset, member_draws
from foldvote.ensemble.group_parts import PARTS, split_groups
from foldvote.ensemble.inputs import read_test_predictions
from foldvote.ensemble.model_predictions import ModelPredictions
from foldvote.ensemble.scaling import Scaling, apply_scaling, fit_scaling, scaling_of_mean
from foldvote.ensemble.single_members import Prices, SingleMembers
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.bootstrap import BETTER, GroupSums, bootstrap, scores
from foldvote.evaluation.intervals import interval
from foldvote.evaluation.vote_table import votes_frame
from foldvote.io.ids import positions_in
from foldvote.io.paths import MemberKey


def choose_in_budget(scored: Sequence[ScoredSubset], budget: Budget, score: str) -> ScoredSubset:
    """The best subset that fits; of equal ones the cheapest.

    Args:
        scored: subsets from the cheapest on.
        budget: what it may cost.
        score: a name in bootstrap.METRICS.

    Raises:
        UserError: if none fits; it names the one that comes closest.
    """
    fitting = [one for one in scored if _excess(one.milliseconds, one.megabytes, budget) <= 1]
    if not fitting:
        closest = min(scored, key=lambda one: _excess(one.milliseconds, one.megabytes, budget))
        limits = ", ".join(f"{key}: {value:g}" for key, value in budget.model_dump(exclude_none=True).items())
        raise UserError(
            f"vote.budget: nothing fits {limits}; the cheapest is {JOIN.join(closest.subset.models)} with one fold and "
            f"the view {JOIN.join(closest.subset.views)}: {closest.milliseconds:.3g} ms per image and "
            f"{closest.megabytes:.3g} megabytes; raise the budget, or drop it"
        )
    return _best(fitting, score)


def honest_scores(
    scored: Sequence[ScoredSubset], budget: Budget, settings: Vote, seed: int
) -> dict[str, dict[str, float]]:
    """The scores of what fits the budget, where each part of the groups is scored by what the other parts chose.

    Args:
        scored: subsets from the cheapest on, at least one of which fits.
        budget: what they may cost.
        settings: the `vote` section.
        seed: the run's seed.

    Returns:
        `value`, `low` and `high` (95 % interval over groups) of each score in frontier.SHOWN.

    Raises:
        UserError: if there is a single group.
    """
    fitting = [one for one in scored if _excess(one.milliseconds, one.megabytes, budget) <= 1]
    first = fitting[0].sums
    values = np.zeros_like(first.values)
    parts = split_groups(np.arange(len(values)), PARTS, seed)
    for part in np.unique(parts):
        out = parts == part
        others = [replace(one, sums=GroupSums(one.sums.values * ~out[:, None], first.classes)) for one in fitting]
        chosen = others.index(_best(others, settings.score))
        values[out] = fitting[chosen].sums.values[out]
    sums = GroupSums(values, first.classes)
    drawn, points = bootstrap({"": sums}, settings.draws, seed)[""], scores(sums)
    spans = {metric: interval(drawn[metric]) for metric in SHOWN}
    return {metric: {"value": points[metric], "low": spans[metric][0], "high": spans[metric][1]} for metric in SHOWN}


def members_to_submit(
    single: SingleMembers, chosen: Subset, prices: Prices, budget: Budget, count: int, seed: int
) -> tuple[int, ...]:
    """The folds whose members are submitted.

    On the reserve these are as many as were scored. Out of fold the number of members cannot be scored; there the
    budget is filled, because the mean of more members is rarely worse.

    Args:
        single: what the subset was scored on.
        chosen: the subset.
        prices: what one member costs.
        budget: what all may cost.
        count: number of folds.
        seed: the run's seed.
    """
    number = chosen.members
    if single.part == "oof":
        affordable = [
            more
            for more in range(1, count + 1)
            if _excess(*prices.of(chosen.models, len(chosen.views), more), budget) <= 1
        ]
        number = max([number, *affordable])
    return member_draws(count, min(number, count), seed)[0]


def predict_budget(
    single: SingleMembers,
    chosen: Subset,
    folds: Sequence[int],
    tests: Sequence[Path],
    expected: dict[str, int],
    split_sha256: str,
    settings: Vote,
) -> tuple[pd.DataFrame, Scaling]:
    """Predict the test images with the members of a subset.

    Args:
        single: what the subset was scored on.
        chosen: the subset.
        folds: the folds of its members.
        tests: test predictions of all members.
        expected: number of folds of each model.
        split_sha256: digest of the split.
        settings: the `vote` section.

    Returns:
        The rows of ensemble/budget.parquet, and the calibration: fitted on the reserve, or as for the vote of all
        members where there is none.

    Raises:
        UserError: if predictions are missing or do not fit each other.
    """
    label_space = single.label_space
    models = {part for model in chosen.models for part in model.split(PRODUCT_SIGN)}
    members: set[MemberKey] = {(model, fold) for model in models for fold in folds}
    test, singles, faults = read_test_predictions(tests, expected, label_space, split_sha256, single.records, members)
    raise_all(faults)
    probabilities = _mean(test, chosen, label_space)
    scaling = fit_budget_scaling(single, chosen, folds, settings)
    if single.part == "oof" and settings.calibration == "auto":
        behind, sample = chosen.members, positions_in(singles[0].ids, test.ids)
        alone = [_mean(one, chosen, label_space) for one in singles]
        scaling = scaling_of_mean(scaling["temperature"], behind, alone, probabilities[sample])
    scaled = apply_scaling(probabilities, scaling)
    codes = probabilities.argmax(axis=1)
    return votes_frame(pd.DataFrame({"image_id": test.ids.to_pylist()}), scaled, codes, label_space), scaling


def fit_budget_scaling(single: SingleMembers, chosen: Subset, folds: Sequence[int], settings: Vote) -> Scaling:
    """The calibration of a subset on the images that it was scored on."""
    on_reserve = single.part == "reserve"
    members = folds if on_reserve else range(chosen.members)
    probabilities = chosen.probabilities(single.mean_of(members))
    source = "reserve" if on_reserve else "out-of-fold predictions"
    return fit_scaling(probabilities, single.rows.labels, settings.calibration, source)


def budget_record(
    one: ScoredSubset,
    single: SingleMembers,
    folds: Sequence[int],
    prices: Prices,
    settings: Vote,
    honest: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """The content of ensemble/budget.json but for the calibration."""
    assert settings.budget is not None
    chosen = one.subset
    milliseconds, megabytes = prices.of(chosen.models, len(chosen.views), len(folds))
    return {
        "budget": settings.budget.model_dump(exclude_none=True),
        "models": list(chosen.models),
        "views": list(chosen.views),
        "folds": list(folds),
        "ms_per_image": round(milliseconds, 6),
        "megabytes": round(megabytes, 6),
        "scored_on": single.part,
        "members_scored": chosen.members,
        "scores": honest,
        "optimistic": {metric: one.value(metric) for metric in SHOWN},
    }


def _excess(milliseconds: float, megabytes: float, budget: Budget) -> float:
    """The share of the budget that is used up; above 1 it does not fit."""
    shares = [milliseconds / budget.ms_per_image] if budget.ms_per_image else []
    return max([*shares, *([megabytes / budget.megabytes] if budget.megabytes else [])])


def _best(scored: Sequence[ScoredSubset], score: str) -> ScoredSubset:
    return (max if BETTER[score] == "higher" else min)(scored, key=lambda one: one.value(score))


def _mean(predictions: ModelPredictions, chosen: Subset, label_space: LabelSpace) -> Any:
    return chosen.probabilities(candidates_of(predictions, label_space))
