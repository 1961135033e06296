"""How well probabilities rank images, one class against all others: ROC AUC, partial ROC AUC, average precision.

Values are those of scikit-learn (the tests compare them, with weights). Ties count half in the AUC. A class that no
image has, or that every image has, has no score (NaN) and is left out of means.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Ranks:
    """The images of a set by rising probability of one class.

    Attributes:
        place: for each image the number of its probability among the different ones, int (images,).
        positive: whether the image is of the class, bool (images,).
    """

    place: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]

    def counts(self, weights: Array | None = None) -> tuple[Array, Array]:
        """The weight of the images of the class, and of all others, at each different probability, rising."""
        number = int(self.place.max()) + 1 if len(self.place) else 0
        ones = np.ones(len(self.place)) if weights is None else weights
        return (
            np.bincount(self.place, ones * self.positive, number).astype(np.float64, copy=False),
            np.bincount(self.place, ones * ~self.positive, number).astype(np.float64, copy=False),
        )


Curve = Callable[[Array, Array], float]  # from the counts of Ranks to a score; NaN where one of the two sums is 0


def ranks(labels: Codes, probabilities: Floats, code: int) -> Ranks:
    """The images by rising probability of a class.

    Args:
        labels: true codes, shape (images,).
        probabilities: shape (images, classes).
        code: the class.
    """
    _, place = np.unique(np.asarray(probabilities)[:, code], return_inverse=True)
    return Ranks(place, np.asarray(labels) == code)


def roc_auc(positive: Array, negative: Array) -> float:
    """The area under the ROC curve: the chance that an image of the class ranks above another one."""
    below = np.cumsum(negative) - negative / 2
    return _share(float(positive @ below), float(positive.sum() * negative.sum()))


def average_precision(positive: Array, negative: Array) -> float:
    """The mean precision over the images of the class, as scikit-learn's `average_precision_score` has it."""
    hits, chosen = np.cumsum(positive[::-1]), np.cumsum((positive + negative)[::-1])
    if not hits.size or hits[-1] <= 0 or chosen[-1] <= hits[-1]:
        return float("nan")
    precision = np.divide(hits, chosen, out=np.zeros(len(hits)), where=chosen > 0)
    return float(positive[::-1] @ precision / hits[-1])


def partial_roc_auc(positive: Array, negative: Array, share: float) -> float:
    """The area up to a share of false positives, scaled so that 0.5 is chance and 1 the best (McClish 1989).

    Args:
        positive: counts of Ranks.
        negative: counts of Ranks.
        share: the largest rate of false positives, above 0 and below 1.
    """
    hits = np.concatenate([[0.0], np.cumsum(positive[::-1])])
    alarms = np.concatenate([[0.0], np.cumsum(negative[::-1])])
    if hits[-1] <= 0 or alarms[-1] <= 0:
        return float("nan")
    hits, alarms = hits / hits[-1], alarms / alarms[-1]
    stop = int(np.searchsorted(alarms, share, "right"))
    at_share = np.interp(share, alarms[stop - 1 : stop + 1], hits[stop - 1 : stop + 1])
    x, y = np.append(alarms[:stop], share), np.append(hits[:stop], at_share)
    area, least = float(np.trapezoid(y, x)), share * share / 2
    return 0.5 * (1 + (area - least) / (share - least))


def by_class(curve: Curve, labels: Codes, probabilities: Floats) -> Array:
    """A score of every class against all others, float64 (classes,); NaN for a class without one.

    Args:
        curve: such as `roc_auc`.
        labels: true codes, shape (images,).
        probabilities: shape (images, classes).
    """
    classes = np.shape(probabilities)[1]
    return np.array([curve(*ranks(labels, probabilities, code).counts()) for code in range(classes)])


def mean_of_known(values: Array, weights: Array | None = None) -> float:
    """The mean of those values that are no NaN; NaN if there is none.

    Args:
        values: one per class.
        weights: of the classes; None: equal.
    """
    known = ~np.isnan(values)
    share = np.ones(len(values)) if weights is None else weights
    return _share(float(values[known] @ share[known]), float(share[known].sum()))


def scored_classes(classes: int) -> range:
    """The classes behind a mean over classes: all; of two the second, whose probability tells that of the first."""
    return range(1, 2) if classes == 2 else range(classes)


def placements(of: Ranks) -> tuple[Array, float]:
    """How much each image adds to the ROC AUC of its class (the placement values of DeLong et al., Biometrics 1988).

    Args:
        of: the images.

    Returns:
        float64 (images,): for an image of the class the share of others below it, for another one the share of the
        class above it, ties half; and the AUC, which is the mean of either kind. Zeros and NaN where it has none.
    """
    positive, negative = of.counts()
    auc = roc_auc(positive, negative)
    if np.isnan(auc):
        return np.zeros(len(of.place)), auc
    below = (np.cumsum(negative) - negative / 2) / negative.sum()
    above = 1 - (np.cumsum(positive) - positive / 2) / positive.sum()
    return np.where(of.positive, below[of.place], above[of.place]), auc


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
