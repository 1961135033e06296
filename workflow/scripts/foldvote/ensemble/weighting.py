"""Methods that fit weights: one per candidate, per factor and candidate, or per class and model.

The log-loss of a mixture is convex in its weights. Its gradient also bounds how far any weights are from the best: no
weights are better by more than max(gain) - 1 nats per image, where the gain of a candidate is the mean ratio of its
probability to the mixture's (Lindsay, "The geometry of mixture likelihoods", Annals of Statistics 1983). The fit of the
weights ends by that bound.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.averaging import apply_weights
from foldvote.ensemble.candidates import Candidates, equal_shares, mixture_of, model_means
from foldvote.ensemble.ensemble_method import EnsembleMethod, FitContext, Floats, Labels, Need, Params
from foldvote.errors import UserError
from foldvote.evaluation.metrics import SMALLEST
from foldvote.evaluation.probabilities import softmax

GAP = 1e-6  # nats per image that the weights may be from the best
EM_ROUNDS = 2000
NO_WEIGHT = 1e-7  # a smaller weight is set to 0
FITTING_SWEEPS = 8  # of iterative proportional fitting
PRIOR_IMAGES = 100  # the pull of class weights to equal weights, in images per class


def fit_mixture_weights(true_class: npt.NDArray[np.floating]) -> Floats:
    """The weights under which the mixture's log-loss is least.

    Args:
        true_class: each candidate's probability of the true class, shape (candidates, images).

    Returns:
        float64 (candidates,), none negative, with the sum 1; within 1e-6 nats per image of the best, or after 2000
        rounds of expectation-maximisation (Dempster, Laird and Rubin 1977). Equal weights where there is no image.
    """
    own: Floats = np.maximum(np.asarray(true_class, np.float64), SMALLEST)
    count, images = own.shape
    equal = np.full(count, 1 / count)
    if count == 1 or not images:
        return equal
    # Quadratic programming comes near the optimum in a few steps; EM, which never makes the loss worse, finishes.
    weights = _by_quadratic_programming(own, equal)
    for _ in range(EM_ROUNDS):
        gain = gains(own, weights)
        if gain.max() - 1 <= GAP:
            break
        weights = weights * gain
        weights /= weights.sum()
    kept = np.where(weights < NO_WEIGHT, 0, weights)
    return kept / kept.sum()


def gains(true_class: Floats, weights: Floats) -> Floats:
    """Each candidate's mean ratio to the mixture; none is above 1 at the best weights.

    Args:
        true_class: probabilities of the true class, shape (candidates, images), above 0.
        weights: shape (candidates,).

    Returns:
        float64 (candidates,).
    """
    return true_class @ (1 / (weights @ true_class)) / true_class.shape[1]


def _by_quadratic_programming(true_class: Floats, start: Floats) -> Floats:
    """Weights near the best ones, by sequential quadratic programming from `start`.

    Where they are not good enough yet, 1 % of `start` is mixed in: EM only multiplies, so a weight of 0 would stay 0.
    """

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixture = np.maximum(weights @ true_class, SMALLEST)
        return -float(np.log(mixture).mean()), -(true_class @ (1 / mixture)) / true_class.shape[1]

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
    return found if gains(true_class, found).max() - 1 <= GAP else 0.99 * found + 0.01 * start


def fit_weights(candidates: Candidates, labels: Labels, _context: FitContext) -> Params:
    """`weights` by candidate that minimise the log-loss."""
    true_class = candidates.probabilities[:, np.arange(len(labels)), labels]
    return {"weights": dict(zip(candidates.names, fit_mixture_weights(true_class).tolist(), strict=True))}


def fit_factor_weights(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """`factors`: by factor and candidate, the weights that minimise the log-loss of the factor's levels.

    Raises:
        UserError: if the classes are not made up of factors.
    """
    if not context.label_space.factors:
        raise UserError(
            "vote: factor_weights needs classes made up of factors; name data.factors, or choose another vote"
        )
    fitted = {}
    for factor, of_class, _ in _levels(context.label_space):
        true_level = of_class[np.asarray(labels, np.int64)]
        same_level = (of_class[None, :] == true_level[:, None]).astype(candidates.probabilities.dtype)
        true_class = np.einsum("mic,ic->mi", candidates.probabilities, same_level)
        fitted[factor] = dict(zip(candidates.names, fit_mixture_weights(true_class).tolist(), strict=True))
    return {"factors": fitted}


def apply_factor_weights(candidates: Candidates, params: Mapping[str, Any], label_space: LabelSpace) -> Floats:
    """The joint distribution nearest to the mean whose marginals of the factors are the weighted ones.

    Iterative proportional fitting (Deming and Stephan, Annals of Mathematical Statistics 1940) keeps the dependence
    between factors that the mean has, which a product of the marginals would lose. It always makes 8 sweeps, so that no
    image depends on the others. Returns float64 (images, classes).
    """
    joint = np.maximum(mixture_of(candidates, equal_shares(candidates)), SMALLEST)
    targets = []
    for factor, of_class, levels in _levels(label_space):
        indicator = np.eye(levels)[of_class]  # (classes, levels)
        marginal = np.maximum(mixture_of(candidates, params["factors"][factor]) @ indicator, SMALLEST)
        targets.append((indicator, marginal))
    for _ in range(FITTING_SWEEPS):
        for indicator, marginal in targets:
            joint = joint * (marginal / np.maximum(joint @ indicator, SMALLEST**2) @ indicator.T)
    return joint / joint.sum(axis=1, keepdims=True)


def fit_class_weights(candidates: Candidates, labels: Labels, _context: FitContext) -> Params:
    """`class_weights`: by model one weight per class, none negative; for every class their sum over models is 1.

    They minimise the log-loss with a pull to equal weights that is as strong as 100 images per class.
    """
    models, means = model_means(candidates)
    count, images, classes = means.shape
    labels = np.asarray(labels, np.int64)
    rows, pull = np.arange(images), PRIOR_IMAGES / max(images, 1)
    true_means = means[:, rows, labels]
    one_hot = np.eye(classes)[labels]

    def loss(flat: Floats) -> tuple[float, Floats]:
        """The loss and its gradient; a softmax over models makes any numbers weights. Shape (models * classes,)."""
        weights = softmax(flat.reshape(count, classes).T).T
        # An image's probability of its true class is `true` / `total`: the weighted sum, normalised over the classes.
        total = np.maximum(np.einsum("mc,mic->i", weights, means, optimize=True), SMALLEST)
        true = np.maximum((weights[:, labels] * true_means).sum(axis=0), SMALLEST)
        slope = np.stack([(1 / total) @ mean for mean in means]) - (true_means / true) @ one_hot
        slope = slope / max(images, 1) - pull / (count * np.maximum(weights, SMALLEST))
        value = float((np.log(total) - np.log(true)).sum()) / max(images, 1)
        value -= pull * float(np.log(np.maximum(weights, SMALLEST)).sum()) / count
        return value, (weights * (slope - (weights * slope).sum(axis=0))).ravel()

    found = minimize(loss, np.zeros(count * classes), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weights = softmax(found.reshape(count, classes).T).T
    return {"class_weights": dict(zip(models, weights.tolist(), strict=True))}


def apply_class_weights(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """The models' means weighted by class and normalised: float64 (images, classes)."""
    models, means = model_means(candidates)
    total = sum(np.asarray(params["class_weights"][model]) * mean for model, mean in zip(models, means, strict=True))
    total = np.maximum(np.asarray(total), SMALLEST)
    return total / total.sum(axis=1, keepdims=True)


def _levels(label_space: LabelSpace) -> list[tuple[str, npt.NDArray[np.int64], int]]:
    """Each factor with the level of every class and the number of levels."""
    return [(name, label_space.level_codes(name), len(levels)) for name, levels in label_space.factors.items()]


WEIGHTS = EnsembleMethod("weights", fit_weights, apply_weights, frozenset({Need.SEVERAL_CANDIDATES}))
FACTOR_WEIGHTS = EnsembleMethod(
    "factor_weights", fit_factor_weights, apply_factor_weights, frozenset({Need.SEVERAL_MODELS, Need.FACTORS})
)
CLASS_WEIGHTS = EnsembleMethod(
    "class_weights", fit_class_weights, apply_class_weights, frozenset({Need.SEVERAL_MODELS})
)
