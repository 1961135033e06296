"""Scores that are functions of three counts per class: the hits, the images that are it, and those predicted as it.

Each function takes the counts of several sets of images at once, such as those of bootstrap draws, and returns float64
(sets,); NaN where a score is not defined.
The names and definitions are those of scikit-learn with `labels=<all codes>` and `zero_division=0`.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]


class ClassCounts(NamedTuple):
    """Counts of images, float64 or int64 of shape (sets, classes)."""

    hits: Numbers
    support: Numbers
    predicted: Numbers


def macro_precision(of: ClassCounts) -> Array:
    """Mean over all classes of the share of images predicted as it that are it; 0 for a class never predicted."""
    return np.asarray(ratio(of.hits, of.predicted).mean(axis=1))


def macro_recall(of: ClassCounts) -> Array:
    """Mean recall over all classes, 0 for one that is absent."""
    return np.asarray(ratio(of.hits, of.support).mean(axis=1))


def balanced_accuracy(of: ClassCounts) -> Array:
    """Mean recall over the classes that are present."""
    return over(ratio(of.hits, of.support).sum(axis=1), (of.support > 0).sum(axis=1))


def f_beta(of: ClassCounts, beta: float) -> Array:
    """Mean over all classes of the F score in which recall counts beta times as much as precision."""
    squared = beta * beta
    return np.asarray(ratio((1 + squared) * of.hits, squared * of.support + of.predicted).mean(axis=1))


def matthews(of: ClassCounts) -> Array:
    """Matthews's correlation of truth and prediction (Gorodkin 2004); 0 where one of them is a single class."""
    hits, support, predicted = of
    images = support.sum(axis=1).astype(np.float64)
    both = images * hits.sum(axis=1) - (support * predicted).sum(axis=1)
    spread = (images**2 - (support**2).sum(axis=1)) * (images**2 - (predicted**2).sum(axis=1))
    return np.where(images > 0, ratio(both, np.sqrt(np.maximum(spread, 0))), np.nan)


def over(numerator: Numbers, denominator: Numbers) -> Array:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def ratio(numerator: Numbers, denominator: Numbers) -> Array:
    """The quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)
