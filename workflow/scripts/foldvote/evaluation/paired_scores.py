"""Scores of several predictions of the same images with their intervals, and their differences to one of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from foldvote.evaluation.bootstrap import BETTER, GroupSums, bootstrap, scores
from foldvote.evaluation.intervals import compare, interval

SHOWN = ("macro_f1", "accuracy", "log_loss")


def paired_scores(
    sums: Mapping[str, GroupSums], reference: str, draws: int, seed: int, shown: Sequence[str] = SHOWN
) -> dict[str, dict[str, float]]:
    """Score predictions, and compare them in pairs over groups.

    Args:
        sums: sums by group of each prediction, of the same groups, by name.
        reference: the name of the one that the others are compared to.
        draws: number of bootstrap draws.
        seed: the run's seed.
        shown: names in bootstrap.METRICS.

    Returns:
        By name: of each score its value, `<score>_low` and `<score>_high`, and the difference to the reference,
        `<score>_difference`, with `<score>_difference_low` and `<score>_difference_high`. Intervals of 95 %.
    """
    drawn, points = bootstrap(sums, draws, seed), {name: scores(own) for name, own in sums.items()}
    rows: dict[str, dict[str, float]] = {}
    for name in sums:
        row: dict[str, float] = {}
        for score in shown:
            own, other = points[name][score], points[reference][score]
            low, high = interval(drawn[name][score])
            against = compare(drawn[name][score], drawn[reference][score], BETTER[score], points=(own, other))
            row |= {score: own, f"{score}_low": low, f"{score}_high": high, f"{score}_difference": against.difference}
            row |= {f"{score}_difference_low": against.low, f"{score}_difference_high": against.high}
        rows[name] = row
    return rows


def mean_sums(sums: Sequence[GroupSums]) -> GroupSums:
    """The mean of the sums of several predictions of the same images: the scores of one of them, on average."""
    return GroupSums(np.mean([own.values for own in sums], axis=0), sums[0].classes)
