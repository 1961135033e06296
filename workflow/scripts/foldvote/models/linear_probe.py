"""Logistic regression on features: fitted on standardised features, the strength of its penalty chosen by groups.

Arrays only, without torch. Everything is fitted on the rows that are given, the standardisation too.
"""

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from foldvote.runtime.seeding import generator

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Penalties that are tried, from strong to weak: half of it times the sum of squares, beside the mean loss."""
PARTS = 3  # of the training rows, by which the penalty is chosen
USUAL = 0.1  # the penalty where there are too few groups to choose
_STEPS, _TOLERANCE = 300, 3e-4


class LinearProbe(NamedTuple):
    """A linear layer on the features as they are.

    Attributes:
        weight: float64 (classes, features).
        bias: float64 (classes,).
        loss: mean cross-entropy on the rows that it was fitted on, by their weights, in nats.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    loss: float

    def logits(self, features: Floats) -> npt.NDArray[np.float64]:
        """Logits of features (rows, features): float64 (rows, classes)."""
        return np.asarray(features @ self.weight.T.astype(features.dtype), np.float64) + self.bias


def deal_parts(labels: Codes, groups: npt.NDArray[np.generic], count: int, seed: int, *key: str | int) -> Codes:
    """Deal whole groups at random to parts of equal numbers of groups, of each class about as many.

    Args:
        labels: the class of each row, (rows,).
        groups: the group of each row, (rows,).
        count: number of parts; as many as there are groups where these are fewer.
        seed: the run's seed.
        key: the purpose of the draw.

    Returns:
        The part of each row, int64 (rows,).
    """
    codes, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((labels, group))
    ends = np.cumsum(np.bincount(group, minlength=len(codes)))
    middle = (np.concatenate([[0], ends[:-1]]) + ends - 1) // 2  # of a group's rows, sorted by their labels
    drawn = generator(seed, *key).permutation(len(codes))
    part_of = np.empty(len(codes), np.int64)
    part_of[np.lexsort((drawn, labels[order][middle]))] = np.arange(len(codes)) % max(min(count, len(codes)), 1)
    return part_of[group]


def choose_strength(
    features: Floats,
    labels: Codes,
    groups: npt.NDArray[np.generic],
    classes: int,
    seed: int,
    weights: Floats | None = None,
) -> float:
    """The penalty with the least cross-entropy on groups that are left out, of those in STRENGTHS.

    Args:
        features: float (rows, features).
        labels: codes, (rows,).
        groups: the group of each row.
        classes: number of classes.
        seed: the seed of the parts.
        weights: above 0, of each row; None: all count alike.
    """
    parts = deal_parts(labels, groups, PARTS, seed, "probe", "parts")
    if len(np.unique(parts)) < 2:
        return USUAL
    losses: list[list[float]] = []
    for part in np.unique(parts):
        left_out = parts == part
        learnt, scored = (None, None) if weights is None else (weights[~left_out], weights[left_out])
        path = _Path(features[~left_out], labels[~left_out], classes, learnt)
        count = _total(labels[left_out], scored)
        losses.append([])
        for strength in STRENGTHS:
            found = path.fit(strength)
            losses[-1].append(_loss(found.logits(features[left_out]), labels[left_out], scored) * count)
            if losses[-1][-1] > min(losses[-1]):  # weaker penalties fit the rows, and no others
                break
    tried = min(map(len, losses))
    return STRENGTHS[int(np.argmin(np.sum([one[:tried] for one in losses], axis=0)))]


def fit_probe(
    features: Floats, labels: Codes, classes: int, strength: float, weights: Floats | None = None
) -> LinearProbe:
    """Fit a logistic regression.

    Args:
        features: float (rows, features).
        labels: codes, (rows,).
        classes: number of classes; one without a row gets the logit of a class with less than one image.
        strength: the penalty, see STRENGTHS.
        weights: above 0, of each row in the mean loss; None: all count alike.
    """
    return _Path(features, labels, classes, weights).fit(strength)


class _Path:
    """Fits of the same rows with one penalty after another, each from the one before."""

    def __init__(self, features: Floats, labels: Codes, classes: int, weights: Floats | None = None) -> None:
        from sklearn.linear_model import LogisticRegression  # takes a second to import

        self.labels, self.classes, self.weights = labels, classes, weights
        self.mean = features.mean(axis=0, dtype=np.float64)
        spread = features.std(axis=0, dtype=np.float64)
        self.spread = np.where(spread > 1e-12, spread, 1.0)
        self.rows = (features - self.mean.astype(features.dtype)) / self.spread.astype(features.dtype)
        self.basis = None
        if len(features) < features.shape[1]:  # weights outside the span of the rows would only add to the penalty
            self.basis, triangle = np.linalg.qr(self.rows.T)
            self.rows = np.ascontiguousarray(triangle.T)
        self.solver = LogisticRegression(max_iter=_STEPS, tol=_TOLERANCE, warm_start=True)

    def fit(self, strength: float) -> LinearProbe:
        """The regression with this penalty. One thread: the bytes are the same on any number of cores."""
        present = np.unique(self.labels)
        weight = np.zeros((self.classes, self.rows.shape[1]))
        bias = np.full(self.classes, -np.log(len(self.labels) + 1.0))
        bias[present] = 0.0
        if len(present) > 1:
            self.solver.set_params(C=1 / (strength * _total(self.labels, self.weights)))
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")  # that it could go on: the next steps change no digit that counts
                self.solver.fit(self.rows, self.labels, self.weights)
            own, of_class = self.solver.coef_.astype(np.float64), self.solver.intercept_.astype(np.float64)
            if len(present) == 2:  # sklearn keeps the difference of the two logits alone
                own, of_class = np.concatenate([-own, own]) / 2, np.concatenate([-of_class, of_class]) / 2
            weight[present], bias[present] = own, of_class
        loss = _loss(self.rows @ weight.T.astype(self.rows.dtype) + bias, self.labels, self.weights)
        folded = (weight if self.basis is None else weight @ self.basis.T) / self.spread
        return LinearProbe(folded, bias - folded @ self.mean, loss)


def _total(labels: Codes, weights: Floats | None) -> float:
    """The sum of the weights of rows; their number without weights."""
    return len(labels) if weights is None else float(weights.sum(dtype=np.float64))


def _loss(logits: Floats, labels: Codes, weights: Floats | None) -> float:
    """Mean cross-entropy in nats, by the weights of the rows."""
    shifted = np.asarray(logits, np.float64) - logits.max(axis=1, keepdims=True)
    own = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return float(np.average(own, weights=weights))
