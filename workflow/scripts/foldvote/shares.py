"""Fitted shares finer than one weight a candidate: weights a factor, weights a class, ranks within a class."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from foldvote.candidates import Candidates, equal_shares, model_means, weighted_mean
from foldvote.errors import Refusal
from foldvote.labels import Scheme
from foldvote.metrics import SMALLEST
from foldvote.simplex import best_mixture
from foldvote.vote import softmax, vote

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
SWEEPS = 8
PULL = 100  # images whose weight the equal weights of a class have
KNOTS = 257


def fit_factor_weights(candidates: Candidates, labels: Labels, scheme: Scheme) -> dict[str, dict[str, float]]:
    """For each factor the weights that minimise the log-loss of its own levels: by factor and candidate.

    Raises:
        Refusal: if the classes are not made up of factors.
    """
    if not scheme.factors:
        raise Refusal(
            "vote: factor_weights needs classes made up of factors; name data.factors, or choose another vote"
        )
    candidates, fitted = candidates.ordered(), {}
    for factor, of_class, _ in _levels(scheme):
        true = of_class[np.asarray(labels, np.int64)]
        same = (of_class[None, :] == true[:, None]).astype(candidates.probabilities.dtype)
        own = np.einsum("mic,ic->mi", candidates.probabilities, same)
        fitted[factor] = dict(zip(candidates.names, best_mixture(own).tolist(), strict=True))
    return fitted


def apply_factor_weights(
    candidates: Candidates, by_factor: Mapping[str, Mapping[str, float]], scheme: Scheme
) -> Floats:
    """The joint nearest to the mean vote whose factors have the weighted marginals: float64 (images, classes).

    Iterative proportional fitting (Deming and Stephan, Annals of Mathematical Statistics 1940) keeps what the mean vote
    says of how factors go together, which a product of the marginals would lose. Always 8 sweeps, so that each image
    is on its own.
    """
    joint = np.maximum(weighted_mean(candidates, equal_shares(candidates)), SMALLEST)
    targets = []
    for factor, of_class, levels in _levels(scheme):
        member = np.eye(levels)[of_class]
        targets.append((member, np.maximum(weighted_mean(candidates, by_factor[factor]) @ member, SMALLEST)))
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
    total = vote(ranks, [shares[name] for name in candidates.names])
    return total / total.sum(axis=1, keepdims=True)


def _levels(scheme: Scheme) -> list[tuple[str, npt.NDArray[np.int64], int]]:
    """Each factor with the level of every class and the number of levels."""
    return [(name, scheme.level_codes(name), len(levels)) for name, levels in scheme.factors.items()]
