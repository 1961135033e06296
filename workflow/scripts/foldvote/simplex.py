"""Weights of a mixture that minimise log-loss: from 0 up, with the sum 1.

The log-loss of a mixture is convex in its weights. Its gradient also bounds how far any weights are from the best: no
weights are better by more than max(gain) - 1 nats an image, gain being the mean of a candidate's share of the mixture
(Lindsay, "The geometry of mixture likelihoods", Annals of Statistics 1983). The fit ends by that bound.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from foldvote.metrics import SMALLEST

Floats = npt.NDArray[np.float64]
GAP = 1e-6  # nats an image that the weights may be from the best
ROUNDS = 2000
NONE = 1e-7  # a weight below it is none


def best_mixture(own: npt.NDArray[np.floating]) -> Floats:
    """The weights under which the mixture's log-loss is least.

    Args:
        own: the true class's probability after each candidate, shape (candidates, images).

    Returns:
        float64 (candidates,), from 0 up with the sum 1; within 1e-6 nats an image of the best, or after 2000 rounds of
        expectation-maximisation (Dempster, Laird and Rubin 1977). Equal weights when there is no image.
    """
    own = np.maximum(np.asarray(own, np.float64), SMALLEST)
    count, images = own.shape
    equal = np.full(count, 1 / count)
    if count == 1 or not images:
        return equal
    weights = _by_programming(own, equal)
    for _ in range(ROUNDS):
        gain = gains(own, weights)
        if gain.max() - 1 <= GAP:
            break
        weights = weights * gain
        weights /= weights.sum()
    return _swept(weights)


def gains(own: Floats, weights: Floats) -> Floats:
    """Each candidate's mean ratio to the mixture; none is above 1 at the best weights. float64 (candidates,)."""
    return own @ (1 / (weights @ own)) / own.shape[1]


def _by_programming(own: Floats, start: Floats) -> Floats:
    """Sequential quadratic programming: near the best in a few steps. A breath of equal weights lets EM go on."""

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixture = np.maximum(weights @ own, SMALLEST)
        return -float(np.log(mixture).mean()), -(own @ (1 / mixture)) / own.shape[1]

    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 200},
    ).x
    found = np.clip(found, 0, None) if np.isfinite(found).all() else start
    found = found / found.sum() if found.sum() > 0 else start
    return found if gains(own, found).max() - 1 <= GAP else 0.99 * found + 0.01 * start


def _swept(weights: Floats) -> Floats:
    kept = np.where(weights < NONE, 0, weights)
    return kept / kept.sum()
