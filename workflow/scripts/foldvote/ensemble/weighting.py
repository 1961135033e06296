"""Fitted weights: one per candidate, per factor and candidate, or per class and model; and ranks within a class.

The log-loss of a mixture is convex in its weights. Its gradient also bounds how far any weights are from the best: no
weights are better by more than max(gain) - 1 nats per image, gain being the mean of a candidate's share of the mixture
(Lindsay, "The geometry of mixture likelihoods", Annals of Statistics 1983). The fit of weights ends by that bound.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates, equal_shares, mixture_of, model_means
from foldvote.errors import UserError
from foldvote.evaluation.metrics import SMALLEST
from foldvote.evaluation.probabilities import softmax, weighted_mean

Floats = npt.NDArray[np.float64]
GAP = 1e-6  # nats an image that the weights may be from the best
ROUNDS = 2000
NONE = 1e-7  # a weight below it is none


def fit_mixture_weights(own: npt.NDArray[np.floating]) -> Floats:
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
    return _without_traces(weights)


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


def _without_traces(weights: Floats) -> Floats:
    kept = np.where(weights < NONE, 0, weights)
    return kept / kept.sum()


Labels = npt.NDArray[np.integer]
SWEEPS = 8
PULL = 100  # images whose weight the equal weights of a class have
KNOTS = 257


def fit_factor_weights(candidates: Candidates, labels: Labels, scheme: LabelSpace) -> dict[str, dict[str, float]]:
    """For each factor the weights that minimise the log-loss of its own levels: by factor and candidate.

    Raises:
        UserError: if the classes are not made up of factors.
    """
    if not scheme.factors:
        raise UserError(
            "vote: factor_weights needs classes made up of factors; name data.factors, or choose another vote"
        )
    candidates, fitted = candidates.ordered(), {}
    for factor, of_class, _ in _levels(scheme):
        true = of_class[np.asarray(labels, np.int64)]
        same = (of_class[None, :] == true[:, None]).astype(candidates.probabilities.dtype)
        own = np.einsum("mic,ic->mi", candidates.probabilities, same)
        fitted[factor] = dict(zip(candidates.names, fit_mixture_weights(own).tolist(), strict=True))
    return fitted


def apply_factor_weights(
    candidates: Candidates, by_factor: Mapping[str, Mapping[str, float]], scheme: LabelSpace
) -> Floats:
    """The joint nearest to the mean vote whose factors have the weighted marginals: float64 (images, classes).

    Iterative proportional fitting (Deming and Stephan, Annals of Mathematical Statistics 1940) keeps what the mean vote
    says of how factors go together, which a product of the marginals would lose. Always 8 sweeps, so that each image
    is on its own.
    """
    joint = np.maximum(mixture_of(candidates, equal_shares(candidates)), SMALLEST)
    targets = []
    for factor, of_class, levels in _levels(scheme):
        member = np.eye(levels)[of_class]
        targets.append((member, np.maximum(mixture_of(candidates, by_factor[factor]) @ member, SMALLEST)))
    for _ in range(SWEEPS):
        for member, target in targets:
            joint = joint * (target / np.maximum(joint @ member, SMALLEST**2) @ member.T)
    return joint / joint.sum(axis=1, keepdims=True)


def fit_class_weights(candidates: Candidates, labels: Labels) -> dict[str, list[float]]:
    """Weights of each model for each class that minimise log-loss, pulled to equal weights as by 100 images a class.

    Returns:
        By model a weight a class, from 0 up; the sum over the models is 1 for every class.
    """
    models, means = model_means(candidates)
    count, images, classes = means.shape
    labels = np.asarray(labels, np.int64)
    rows, pull = np.arange(images), PULL / max(images, 1)
    own = means[:, rows, labels]
    member = np.eye(classes)[labels]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = softmax(flat.reshape(count, classes).T).T
        whole = np.maximum(np.einsum("mc,mic->i", weights, means, optimize=True), SMALLEST)
        true = np.maximum((weights[:, labels] * own).sum(axis=0), SMALLEST)
        slope = np.stack([(1 / whole) @ one for one in means]) - (own / true) @ member
        slope = slope / max(images, 1) - pull / (count * np.maximum(weights, SMALLEST))
        value = float((np.log(whole) - np.log(true)).sum()) / max(images, 1)
        value -= pull * float(np.log(np.maximum(weights, SMALLEST)).sum()) / count
        return value, (weights * (slope - (weights * slope).sum(axis=0))).ravel()

    found = minimize(loss, np.zeros(count * classes), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weights = softmax(found.reshape(count, classes).T).T
    return dict(zip(models, weights.tolist(), strict=True))


def apply_class_weights(candidates: Candidates, by_model: Mapping[str, list[float]]) -> Floats:
    """Models' means weighted by class, rows brought to the sum 1: float64 (images, classes)."""
    models, means = model_means(candidates)
    total = sum(np.asarray(by_model[model]) * mean for model, mean in zip(models, means, strict=True))
    total = np.maximum(np.asarray(total), SMALLEST)
    return total / total.sum(axis=1, keepdims=True)


def fit_ranks(candidates: Candidates) -> dict[str, list[list[float]]]:
    """Knots of each candidate's probabilities of each class: 257 quantiles, by candidate a list a class."""
    candidates, steps = candidates.ordered(), np.linspace(0, 1, KNOTS)
    return {
        name: np.quantile(own.astype(np.float64), steps, axis=0).T.tolist()
        for name, own in zip(candidates.names, candidates.probabilities, strict=True)
    }


def apply_ranks(candidates: Candidates, knots: Mapping[str, list[list[float]]]) -> Floats:
    """The equal mean of percentile ranks, interpolated between the knots, rows brought to the sum 1.

    Knots of one value count as their mean rank; a rank runs from 1/514 to 513/514. Float64 (images, classes).
    """
    candidates = candidates.ordered()
    ranks = np.empty(candidates.probabilities.shape)
    for rank, name, own in zip(ranks, candidates.names, candidates.probabilities, strict=True):
        for code, values in enumerate(knots[name]):
            unique, first, times = np.unique(values, return_index=True, return_counts=True)
            rank[:, code] = (np.interp(own[:, code], unique, first + (times - 1) / 2) + 0.5) / KNOTS
    shares = equal_shares(candidates)
    total = weighted_mean(ranks, [shares[name] for name in candidates.names])
    return total / total.sum(axis=1, keepdims=True)


def _levels(scheme: LabelSpace) -> list[tuple[str, npt.NDArray[np.int64], int]]:
    """Each factor with the level of every class and the number of levels."""
    return [(name, scheme.level_codes(name), len(levels)) for name, levels in scheme.factors.items()]
