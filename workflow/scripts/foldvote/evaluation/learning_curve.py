"""The score as a function of the number of groups that a network learnt from, prolonged to more groups.

A straight line is fitted to the scores over a function of the number of groups n: its logarithm, 1/sqrt(n) or 1/n. Each
is a power law `score = a + b n^-c` with a fixed power (c towards 0 for the logarithm), so that three or four noisy
points suffice for the two numbers that are left. Power laws describe learning curves of many learners (Cortes et al.,
"Learning curves: asymptotic values and rate of convergence", NIPS 1993; Hestness et al., arXiv:1712.00409, with powers
below 1/2 for deep networks; Viering and Loog, "The shape of learning curves: a review", TPAMI 2023). From the training
part of a fold to all groups is a short way, on which they hardly differ; the interval holds all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.intervals import reflected_interval
from foldvote.runtime.seeding import generator

Array = npt.NDArray[np.float64]
SHAPES: dict[str, Callable[[Array], Array]] = {
    "root": lambda n: n**-0.5,  # the middle one: its value is told
    "logarithm": np.log,
    "inverse": lambda n: 1 / n,
}


@dataclass(frozen=True)
class Gain:
    """What averaging several networks adds to the score of one.

    Attributes:
        value: over all groups.
        drawn: in each draw of groups, float64 (draws,).
    """

    value: float
    drawn: Array


@dataclass(frozen=True)
class CurveForecast:
    """A forecast with its 95 % interval.

    Attributes:
        value: the forecast.
        low: lower end: of the score on the groups' whole population.
        high: upper end.
        test_low: lower end of the score on a test set of so many groups.
        test_high: upper end.
    """

    value: float
    low: float
    high: float
    test_low: float
    test_high: float


def prolonged(at: Array, values: Array, target: float) -> tuple[Array, float]:
    """The values at `target` of straight lines through values (points, lines) at `at` (points,), and their misfit."""
    slope, start = np.polyfit(at, values, 1)
    misfit = float(((at[:, None] * slope + start - values) ** 2).sum())
    return start + slope * target, misfit


def gain_of_averaging(one: float, two: float, one_drawn: Array, two_drawn: Array, networks: int) -> Gain:
    """The gain of averaging so many networks, from the scores of one and of the mean of two.

    What a network's own noise costs falls with the number m of networks as 1/m, as in ensemble.members_curve.

    Args:
        one: mean score of single networks.
        two: score of the mean of two.
        one_drawn: the first in each draw of groups, float64 (draws,).
        two_drawn: the second.
        networks: number of networks to prolong to.
    """
    counts = np.asarray([1.0, 0.5])
    value = prolonged(counts, np.asarray([[one], [two]]), 1 / networks)[0]
    drawn = prolonged(counts, np.stack([one_drawn, two_drawn]), 1 / networks)[0]
    return Gain(float(value[0]) - one, drawn - one_drawn)


def forecast_score(
    groups: Array,
    values: Array,
    drawn: Array,
    target: float,
    gain: Gain,
    scatter: float,
    seed: int,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> CurveForecast:
    """Prolong a learning curve, and add the gain of averaging.

    In each draw of groups the curve is fitted anew. Its points differ as well by the draw of a network's seed and of
    its training groups. The points' distances from the line say how much; each draw moves them by as much.

    Args:
        groups: number of groups learnt from, shape (points,), rising; the last point is the K-fold members'.
        values: the scores of single networks, shape (points,).
        drawn: the same in each draw of the scored groups, shape (points, draws).
        target: number of groups to prolong to.
        gain: of averaging, in the same draws.
        scatter: standard deviation of the score of a test set, as a multiple of that of the scored groups: the root of
            their number by that of the test set's.
        seed: the run's seed.
        limits: the least and the greatest value that the score can have.
    """
    points, draws = drawn.shape
    noise = generator(seed, "learning curve", "noise").normal(size=(points, draws))
    # Another draw's distance from the mean is independent of this draw.
    of_test = scatter * np.roll(drawn[-1] - values[-1], draws // 2)
    value, ends, test_ends = 0.0, list[float](), list[float]()
    for shape, form in SHAPES.items():
        at, to = form(groups), float(form(np.asarray(target, np.float64)))
        prolongation, misfit = prolonged(at, values[:, None], to)
        centre = float(prolongation[0]) + gain.value
        spread = (misfit / (points - 2)) ** 0.5 if points > 2 else 0.0
        forecasts = prolonged(at, drawn + spread * noise, to)[0] + gain.drawn
        ends += reflected_interval(forecasts, centre)
        test_ends += reflected_interval(forecasts + of_test, centre)
        if shape == "root":
            value = centre
    found = (value, min(ends), max(ends), min(test_ends), max(test_ends))
    return CurveForecast(*(float(np.clip(one, *limits)) for one in found))
