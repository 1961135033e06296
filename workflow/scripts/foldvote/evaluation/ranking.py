"""How well probabilities rank images, one class against all others: ROC AUC, partial ROC AUC, average precision.

Values are those of scikit-learn (the tests compare them, with weights). Ties count half in the AUC. A class that no
image has, or that every image has, has no score (NaN) and is left out of means.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
_MOST_BYTES = 32 << 20  # of the counts of some weightings


@dataclass(frozen=True)
class Ranks:
    """The images of a set in places by rising probability of one class.

    A place holds the images of one probability, or of several in a row that no image of the class has: between these,
    no curve changes its direction.

    Attributes:
        place: the place of each image, int (images,), from 0 up.
        positive: whether the image is of the class, bool (images,).
        members: the positions of the images of the class, int (images of the class,).
        places: number of places.
    """

    place: npt.NDArray[np.intp]
    positive: npt.NDArray[np.bool_]
    members: npt.NDArray[np.intp]
    places: int

    def counts(self, weights: Array | None = None) -> tuple[Array, Array]:
        """The weight of the images of the class, and of all others, in each place, rising.

        Args:
            weights: of the images, whole numbers as float64 (images,); None: each counts once.
        """
        of_class = None if weights is None else weights[self.members]
        positive = np.bincount(self.place[self.members], of_class, self.places).astype(np.float64, copy=False)
        return positive, np.bincount(self.place, weights, self.places) - positive

    def counts_of_draws(self, unit: npt.NDArray[np.intp], times: Array) -> Iterator[tuple[Array, Array]]:
        """What `counts` gives for each of many weightings of groups of images, in a sixth of the time.

        Args:
            unit: the group of each image, int (images,).
            times: the weight of each group, float64 (weightings, groups), whole numbers.
        """
        everyone, members = (
            csr_array((np.ones(len(of)), (place, of)), shape=(self.places, times.shape[1]))
            for place, of in ((self.place, unit), (self.place[self.members], unit[self.members]))
        )
        at_once = max(1, _MOST_BYTES // (8 * max(self.places, 1)))
        for start in range(0, len(times), at_once):
            by_unit = np.ascontiguousarray(times[start : start + at_once].T)
            summed, positive = (np.ascontiguousarray((held @ by_unit).T) for held in (everyone, members))
            yield from zip(positive, summed - positive, strict=True)


Curve = Callable[[Array, Array], float]  # from the counts of Ranks to a score; NaN where one of the two sums is 0


def ranks(labels: Codes, probabilities: Floats, code: int) -> Ranks:
    """The images by rising probability of a class.

    Args:
        labels: true codes, shape (images,).
        probabilities: shape (images, classes).
        code: the class.
    """
    values, value_of = np.unique(np.asarray(probabilities)[:, code], return_inverse=True)
    positive = np.asarray(labels) == code
    members = np.flatnonzero(positive)
    holds_class = np.bincount(value_of[members], minlength=len(values)) > 0
    begins = np.ones(len(values), bool)
    begins[1:] = holds_class[1:] | holds_class[:-1]
    place = (np.cumsum(begins) - 1)[value_of]
    return Ranks(place, positive, members, int(begins.sum()))


def place_counts(labels: Codes, probabilities: Floats, code: int) -> tuple[Array, Array]:
    """What `Ranks.counts` gives without weights, in a third of the time: how many images are where is enough.

    Args:
        labels: true codes, shape (images,).
        probabilities: shape (images, classes).
        code: the class.
    """
    column, positive = np.asarray(probabilities)[:, code], np.asarray(labels) == code
    values, number = np.unique(column[positive], return_counts=True)
    everyone = np.sort(column)
    below, up_to = (np.searchsorted(everyone, values, side) for side in ("left", "right"))
    counts = np.zeros((2, 2 * len(values) + 1))
    counts[0, 1::2] = number
    counts[1, 1::2] = up_to - below - number
    counts[1, ::2] = np.append(below, len(column)) - np.append(0, up_to)
    return counts[0], counts[1]


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
    hits, alarms = (np.zeros(len(counts) + 1) for counts in (positive, negative))
    np.cumsum(positive[::-1], out=hits[1:])
    np.cumsum(negative[::-1], out=alarms[1:])
    if hits[-1] <= 0 or alarms[-1] <= 0:
        return float("nan")
    alarms /= alarms[-1]
    stop = int(np.searchsorted(alarms, share, "right"))
    x, y = alarms[: stop + 1], hits[: stop + 1] / hits[-1]
    x[stop], y[stop] = share, np.interp(share, x[stop - 1 :], y[stop - 1 :])
    area, least = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum()), share * share / 2
    return 0.5 * (1 + (area - least) / (share - least))


def by_class(curve: Curve, labels: Codes, probabilities: Floats) -> Array:
    """A score of every class against all others, float64 (classes,); NaN for a class without one.

    Args:
        curve: such as `roc_auc`.
        labels: true codes, shape (images,).
        probabilities: shape (images, classes).
    """
    classes = np.shape(probabilities)[1]
    return np.array([curve(*place_counts(labels, probabilities, code)) for code in range(classes)])


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
