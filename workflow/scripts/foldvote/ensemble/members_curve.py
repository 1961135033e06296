"""The score by the number of members behind a prediction, and a forecast for all members.

With R repeats an image is predicted out of fold by R members, one of each repeat, and a test image by all members. The
mean of m members is scored for m from 1 to R. What a member's own noise costs falls with m: as 1/m for a smooth score
and small noise, as its root for accuracy and large noise. For each of some powers of m a straight line is fitted and
prolonged to all members.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates, equal_shares, mixture_of
from foldvote.ensemble.selection import EvaluationRows
from foldvote.evaluation.bootstrap import METRICS
from foldvote.evaluation.intervals import interval
from foldvote.evaluation.learning_curve import prolonged
from foldvote.evaluation.metric_bootstrap import Scored, score_rows
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.runtime.seeding import generator

_POWERS = (1.0, 0.5, 2.0)
_MOST_SUBSETS = 10  # of the repeats, for each number of members
Curve = dict[str, Any]


def members_curve(
    repeats: Sequence[Candidates],
    rows: EvaluationRows,
    label_space: LabelSpace,
    members: int,
    draws: int,
    seed: int,
    metrics: Sequence[Metric] = (),
) -> Curve | None:
    """Score the mean of 1 to R members per image, and forecast the score of the mean of all members.

    Args:
        repeats: out-of-fold probabilities of the same images, by the members of each repeat.
        rows: the images' labels and groups.
        label_space: the classes.
        members: number of members of a model that predict a test image.
        draws: number of bootstrap draws.
        seed: the run's seed.
        metrics: what is scored beside bootstrap.METRICS.

    Returns:
        Plain JSON: `points`, by rising number of `members` each score with its 95 % interval over groups; `forecast`,
        the same for all members; its interval is that of the draws of groups under every power. None with fewer than
        two repeats.
    """
    if len(repeats) < 2:
        return None
    means = np.stack([mixture_of(one, equal_shares(one)) for one in repeats])
    counts = range(1, len(repeats) + 1)
    found = []
    for subsets in (_subsets(len(repeats), m, seed) for m in counts):
        answers = {str(one): Answers.of(rows.labels, means[list(one)].mean(axis=0)) for one in subsets}
        found.append(_averaged(score_rows(answers, rows.groups, label_space, metrics, draws, seed)))
    points = [{"members": m} | _with_interval(values, drawn) for m, (values, drawn) in zip(counts, found, strict=True)]
    forecast: dict[str, Any] = {"members": members}
    for metric in (*METRICS, *(one.name for one in metrics)):
        values = np.asarray([values[metric] for values, _ in found])
        if not np.isfinite(values).all():
            points = [{name: value for name, value in point.items() if name != metric} for point in points]
            continue
        drawn = np.stack([drawn[metric] for _, drawn in found])
        forecast[metric] = _forecast(np.asarray(counts, np.float64), values, drawn, members)
    return {"points": points, "forecast": forecast}


def _forecast(
    counts: npt.NDArray[np.float64], values: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], members: int
) -> dict[str, float]:
    """The score of so many members by the power that fits best; its interval holds those of all powers.

    Args:
        counts: numbers of members, shape (points,).
        values: their scores, shape (points,).
        drawn: the same in each draw of groups, shape (points, draws).
        members: the number to prolong to.
    """
    found = []
    for power in _POWERS:
        value, misfit = prolonged(counts**-power, values[:, None], members**-power)
        spread, _ = prolonged(counts**-power, drawn, members**-power)
        found.append((misfit, float(value[0]), *interval(spread)))
    # Two points fit every power: then it is the first one.
    best = min(found, key=lambda one: round(one[0], 12))
    return {"value": best[1], "low": min(one[2] for one in found), "high": max(one[3] for one in found)}


def _subsets(repeats: int, size: int, seed: int) -> list[tuple[int, ...]]:
    """All subsets of the repeats of a size, or ten of them."""
    known = list(combinations(range(repeats), size))
    if len(known) <= _MOST_SUBSETS:
        return known
    chosen = generator(seed, "members curve", size).choice(len(known), _MOST_SUBSETS, replace=False)
    return [known[position] for position in sorted(chosen)]


def _averaged(scored: Mapping[str, Scored]) -> tuple[dict[str, float], dict[str, npt.NDArray[np.float64]]]:
    """Scores averaged over several predictions: of all images, and in each draw of groups."""
    every, names = [*scored.values()], [*next(iter(scored.values())).points]
    values = {metric: float(np.mean([one.points[metric] for one in every])) for metric in names}
    return values, {metric: np.mean([one.draws[metric] for one in every], axis=0) for metric in names}


def _with_interval(
    values: Mapping[str, float], drawn: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, dict[str, float]]:
    spans = {metric: interval(drawn[metric]) for metric in drawn}
    return {metric: {"value": values[metric], "low": spans[metric][0], "high": spans[metric][1]} for metric in drawn}
