"""Intervals of scores, and comparisons of two rows, from the draws of a bootstrap."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

Direction = Literal["higher", "lower"]


class Comparison(NamedTuple):
    """The difference `a - b`, its interval, and the share of draws in which a is better (a tie counts half)."""

    difference: float
    low: float
    high: float
    better: float


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval (Efron 1979): the range of the middle part of the drawn scores.

    With less than about 30 groups it is too narrow. Macro-F1 is biased downwards, by draws that miss a rare class.

    Args:
        values: scores in the draws, shape (draws,).
        level: size of the middle part, above 0 and below 1.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} must be between 0 and 1")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def reflected_interval(
    values: Array, point: float, lowest: float = -np.inf, highest: float = np.inf, level: float = 0.95
) -> tuple[float, float]:
    """The basic interval: the percentile interval reflected at the score (Davison and Hinkley, "Bootstrap methods and
    their application", 1997, section 5.2).

    A draw of groups misses some rare classes that the groups have, as the groups miss some of the population's: each
    lowers macro-F1 by about as much. The reflection takes both shifts back.

    Args:
        values: scores in the draws, shape (draws,).
        point: the score of all groups.
        lowest: the least value that the score can have.
        highest: the greatest.
        level: size of the middle part, above 0 and below 1.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    low, high = interval(values, level)
    return max(2 * point - high, lowest), min(2 * point - low, highest)


def compare(
    a: Array, b: Array, better: Direction, level: float = 0.95, points: tuple[float, float] | None = None
) -> Comparison:
    """Compare two rows draw by draw in one score.

    Args:
        a: scores of one row in the draws, shape (draws,).
        b: scores of another row in the same draws, shape (draws,).
        better: which values are better, as in BETTER.
        level: of the interval.
        points: the scores of a and b over all images, whose difference is returned; None: the mean difference over the
            draws is returned.

    Raises:
        ValueError: if the shapes differ or `better` is neither `higher` nor `lower`.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"draws {a.shape} and {b.shape} must be one row of equal length")
    if better not in ("higher", "lower"):
        raise ValueError(f"better is {better!r}, neither higher nor lower")
    differences = a - b
    gain = differences if better == "higher" else -differences
    share = np.mean(gain > 0) + np.mean(gain == 0) / 2
    difference = differences.mean() if points is None else points[0] - points[1]
    return Comparison(float(difference), *interval(differences, level), float(share))
