"""Cost against score: what more models, members and views of a mean are worth, and what they cost.

Subsets of models, of members of each model (folds) and of views are scored as plain means and priced. On the reserve
all members of a model predict an image, so that the number of folds can be scored; out of fold only one does, or one of
each repeat. With fewer folds than there are, up to three draws of folds are scored together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.ensemble.candidates import PRODUCT_SIGN, Candidates
from foldvote.ensemble.selection import one_standard_error_rule
from foldvote.ensemble.single_members import Prices, SingleMembers
from foldvote.evaluation.bootstrap import BETTER, GroupSums, bootstrap, group_sums, scores
from foldvote.evaluation.intervals import interval
from foldvote.evaluation.probabilities import weighted_mean
from foldvote.runtime.seeding import generator

SHOWN = ("macro_f1", "accuracy", "log_loss")
JOIN = "+"  # between names of models or views in a cell
_EVERY = 6  # of so few models, members or views each number is tried; of more these and all of them
_STEPS = (1, 2, 3, 5, 10, 25, 50, 100)
_MOST_ROWS = 200
_MOST_GREEDY = 10  # models that are added one by one; the others follow by their own scores
_MOST_DRAWS = 3  # of the members, for each number of them
_MOST_SUMS = 60_000_000  # of all rows; more groups are dealt to bags
_DECIMALS = 7  # of scores that are compared: sums in another order differ in the last bits


@dataclass(frozen=True)
class Subset:
    """A mean of some predictions.

    Attributes:
        models: names of the models, or of the factor product; sorted.
        views: names of the views.
        members: number of members of each model.
    """

    models: tuple[str, ...]
    views: tuple[str, ...]
    members: int

    def probabilities(self, candidates: Candidates) -> npt.NDArray[np.float64]:
        """The mean over models and views, each with the same weight; float64 (images, classes)."""
        wanted = [f"{model}/{view}" for model in self.models for view in self.views]
        return weighted_mean(candidates.named(wanted).probabilities)


@dataclass(frozen=True)
class ScoredSubset:
    """A subset with its costs and its scores by group."""

    subset: Subset
    milliseconds: float
    megabytes: float
    sums: GroupSums

    def value(self, score: str) -> float:
        """One score of all images."""
        return round(scores(self.sums)[score], _DECIMALS)


def score_subsets(single: SingleMembers, prices: Prices, score: str, seed: int) -> list[ScoredSubset]:
    """Score and price subsets, at most about 200.

    Models are added greedily by the mean of all members and views; each one is tried alone as well. Views are added in
    their order.

    Args:
        single: what single members predict.
        prices: what one member of each model costs.
        score: by which models are added, a name in bootstrap.METRICS.
        seed: the run's seed.

    Returns:
        From the cheapest on, by milliseconds, then megabytes.
    """
    members, views = _steps(single.members), [single.views[:number] for number in _steps(len(single.views))]
    whole = single.mean_of(range(single.members))
    sets = _model_sets(whole, single, score, max(3, _MOST_ROWS // (len(members) * len(views))))
    columns = 18 + 2 * len(single.label_space.classes)
    groups = _dealt(single.rows.groups, _MOST_SUMS // (columns * len(sets) * len(members) * len(views)), seed)
    sums: dict[Subset, GroupSums] = {}
    for number in members:
        draws = member_draws(single.members, number, seed)
        for draw in draws:
            candidates = single.mean_of(draw)
            for subset in (Subset(models, shown, number) for models in sets for shown in views):
                probabilities = subset.probabilities(candidates)
                own = group_sums(single.rows.labels, probabilities, groups, probabilities.shape[1])
                before = sums[subset].values if subset in sums else 0.0
                sums[subset] = GroupSums(before + own.values / len(draws), own.classes)
    priced = [
        ScoredSubset(subset, *prices.of(subset.models, len(subset.views), subset.members), own)
        for subset, own in sums.items()
    ]
    return sorted(priced, key=lambda one: (one.milliseconds, one.megabytes, one.subset.models))


def frontier_table(scored: Sequence[ScoredSubset], part: str, score: str, draws: int, seed: int) -> pd.DataFrame:
    """The rows of ensemble/frontier.csv.

    Args:
        scored: subsets from the cheapest on.
        part: what they were scored on, `reserve` or `oof`.
        score: by which the best and the cheapest are marked.
        draws: number of bootstrap draws.
        seed: the run's seed.

    Returns:
        One row per subset, in the order given: `models`, `views`, `folds`, `networks`, `forwards`, `ms_per_image`,
        `megabytes`, `scored_on`, each of SHOWN with `_low` and `_high`, `standard_error` (of the difference to the best
        in `score`), `pareto` (none that costs no more is better), `best`, `cheapest` (the fastest of those within one
        standard error of the best).
    """
    drawn = bootstrap({str(at): one.sums for at, one in enumerate(scored)}, draws, seed)
    values = {str(at): one.value(score) for at, one in enumerate(scored)}
    higher = BETTER[score] == "higher"
    best = (max if higher else min)(values, key=lambda at: values[at])
    errors = {at: float(np.std(own[score] - drawn[best][score], ddof=1)) for at, own in drawn.items()}
    cheapest = one_standard_error_rule(list(values), values, errors, higher_is_better=higher)
    rows, ahead = [], _undominated(scored, [value * (1 if higher else -1) for value in values.values()])
    for at, one in enumerate(scored):
        name = str(at)
        row: dict[str, object] = _described(one) | {"scored_on": part}
        for metric in SHOWN:
            low, high = interval(drawn[name][metric])
            row |= {metric: one.value(metric), f"{metric}_low": low, f"{metric}_high": high}
        row |= {"standard_error": errors[name], "pareto": bool(ahead[at])}
        rows.append(row | {"best": name == best, "cheapest": name == cheapest})
    return pd.DataFrame(rows).round(6)


def member_draws(count: int, number: int, seed: int) -> list[tuple[int, ...]]:
    """Draws of `number` of `count` members: neighbours in a fixed random circle; the first one is submitted."""
    if number == count:
        return [tuple(range(count))]
    circle = generator(seed, "frontier", "members").permutation(count)
    starts = dict.fromkeys(count * draw // _MOST_DRAWS for draw in range(_MOST_DRAWS))
    return [tuple(sorted(int(circle[(start + step) % count]) for step in range(number))) for start in starts]


def _described(one: ScoredSubset) -> dict[str, object]:
    models = len([part for model in one.subset.models for part in model.split(PRODUCT_SIGN)])
    return {
        "models": JOIN.join(one.subset.models),
        "views": JOIN.join(one.subset.views),
        "folds": one.subset.members,
        "networks": models * one.subset.members,
        "forwards": models * one.subset.members * len(one.subset.views),
        "ms_per_image": one.milliseconds,
        "megabytes": one.megabytes,
    }


def _undominated(scored: Sequence[ScoredSubset], gains: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Whether no other subset is at least as fast, as small and as good, and better in one of them; bool (subsets,)."""
    merits = np.array([(-one.milliseconds, -one.megabytes, gain) for one, gain in zip(scored, gains, strict=True)])
    difference = merits[None] - merits[:, None]
    return ~((difference >= 0).all(axis=2) & (difference > 0).any(axis=2)).any(axis=1)


def _steps(count: int) -> list[int]:
    tried = range(1, count) if count <= _EVERY else _STEPS
    return sorted({*(step for step in tried if step < count), count})


def _model_sets(whole: Candidates, single: SingleMembers, score: str, most: int) -> list[tuple[str, ...]]:
    """All models, the best one, growing sets of models in the order in which they help most, and each model alone."""
    labels, sign = single.rows.labels, 1 if BETTER[score] == "higher" else -1
    models = sorted(set(whole.models))
    means = {model: Subset((model,), single.views, 1).probabilities(whole) for model in models}

    def gain(chosen: Sequence[str]) -> float:
        mean = weighted_mean(np.stack([means[model] for model in chosen]))
        everyone = np.zeros(len(labels), np.int64)
        return round(sign * scores(group_sums(labels, mean, everyone, mean.shape[1]))[score], _DECIMALS)

    alone = sorted(models, key=lambda model: -gain([model]))
    order = alone[:1]
    while len(order) < min(len(models), _MOST_GREEDY):
        order.append(max((model for model in alone if model not in order), key=lambda model: gain([*order, model])))
    order += [model for model in alone if model not in order]
    growing = [order[:number] for number in _steps(len(order))]
    sets = [growing[-1], growing[0], *growing, *([model] for model in alone)]
    return list(dict.fromkeys(tuple(sorted(names)) for names in sets))[:most]


def _dealt(groups: npt.NDArray[np.integer], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Groups dealt to 100 bags or more where there are more than `most`: sums of independent groups are independent."""
    count, bags = int(groups.max()) + 1, max(100, most)
    if count <= bags:
        return groups.astype(np.int64)
    return (generator(seed, "frontier", "bags").permutation(count) % bags)[groups]
