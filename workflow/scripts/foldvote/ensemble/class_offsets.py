"""From probabilities to a class: the most probable one, or the one after offsets that raise macro-F1.

Macro-F1 counts a rare class as much as a frequent one, and the most probable class is not the best answer for it
(Lipton, Elkan and Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", ECML 2014). Offsets are
fitted to labels, or without them to the macro-F1 that is expected if the probabilities are true (Ye, Chai, Lee and
Chieu, "Optimizing F-measures: a tale of two approaches", ICML 2012): a rare class has few labels to learn an offset
from, while every image has a probability of it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import EXPECTED
from foldvote.evaluation.metrics import SMALLEST

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Counts = npt.NDArray[np.integer] | Floats
# How far each image is of each class, (images, classes): true or false by its label, or a probability.
Belonging = npt.NDArray[np.bool_] | Floats
LIMIT = 1.5  # nats: no class counts more than 4.5 times its probability
STEPS = 30  # grid points on each side of 0
SWEEPS = 5
SHRINK = 0.001  # macro-F1 that each nat of an offset must bring, so that a few images of a rare class do not move it


def predict_classes(
    probabilities: npt.NDArray[np.floating], offsets: Sequence[float] | None = None
) -> npt.NDArray[np.int64]:
    """The class of each image: the largest log-probability plus offset; of equal ones the lowest code.

    Args:
        probabilities: shape (images, classes).
        offsets: nats, one per class; None: the most probable class.

    Returns:
        int64 (images,).
    """
    if offsets is None:
        return np.asarray(probabilities).argmax(axis=1)
    return (_log(probabilities) + np.asarray(offsets, np.float64)).argmax(axis=1)


def fit_offsets(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer] | None = None) -> list[float]:
    """Offsets that raise macro-F1, by coordinate ascent over a grid of -1.5 to 1.5 nats.

    Each class in turn takes the grid's best offset, all others fixed, in at most 5 sweeps; a nat must bring 0.001 of
    macro-F1, and of equally good offsets the nearest to 0 is taken.

    Args:
        probabilities: shape (images, classes).
        labels: true codes, shape (images,); None: an image counts for each class by its probability, so that what
            rises is the expected macro-F1 (the ratio of expected counts, which is near to it for many images).

    Returns:
        One per class. Macro-F1 on these images is never below that without offsets; where it would be, all are 0.
    """
    logs = _log(probabilities)
    images, classes = logs.shape
    belongs = np.asarray(probabilities, np.float64) if labels is None else np.eye(classes, dtype=bool)[labels]
    grid = np.round(np.linspace(-LIMIT, LIMIT, 2 * STEPS + 1), 6)
    grid = grid[np.argsort(np.abs(grid), kind="stable")]  # nearest to 0 first: the first of equal scores is taken
    support, every = belongs.sum(axis=0), np.arange(images)
    offsets, shifted = np.zeros(classes), logs.copy()
    best, second = _two_largest(shifted)
    for _ in range(SWEEPS):
        before = offsets.copy()
        for code in range(classes):
            rival = np.where(best == code, second, best)
            threshold = shifted[every, rival] - logs[:, code]
            gained = _macro_f1_over_grid(threshold, rival, belongs, support, code, grid) - SHRINK * np.abs(grid)
            offset = grid[np.flatnonzero(gained >= gained.max() - 1e-12)[0]]
            if offset != offsets[code]:
                offsets[code], shifted[:, code] = offset, logs[:, code] + offset
                best, second = _two_largest(shifted)
        if (offsets == before).all():
            break
    plain, moved = (
        _macro_f1(predict_classes(probabilities, own), belongs, support) for own in (None, offsets.tolist())
    )
    return [0.0] * classes if moved < plain else (offsets + 0.0).tolist()  # rounding at a tie


def offsets_of(end: str, probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[float]:
    """The offsets of a method whose name has this end: `+offsets` of labels, `+expected` of the probabilities alone."""
    return fit_offsets(probabilities, None if end == EXPECTED else labels)


def _two_largest(values: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The column of the largest value of each row, and of the largest of the others; of equal ones the first."""
    rows, best = np.arange(len(values)), values.argmax(axis=1)
    without = values.copy()
    without[rows, best] = -np.inf
    return best, without.argmax(axis=1)


def _macro_f1_over_grid(
    threshold: Floats,
    rival: Codes,
    belongs: Belonging,
    support: Counts,
    code: int,
    grid: Floats,
) -> Floats:
    """Macro-F1 for each value that the offset of one class may take; the other offsets stay.

    Scoring every grid point on its own would take one pass over the images for each. Instead images are counted once by
    the grid cell of their threshold; sums over the cells up to a grid point then give the numbers of predictions and
    hits of every class there.

    Args:
        threshold: the offset from which on each image is predicted as `code` and no longer as its rival, (images,).
        rival: its best other class, shape (images,).
        belongs: how far each image is of each class.
        support: the images of each class, which are the sums of `belongs`.
        code: the class whose offset varies.
        grid: its values, in any order.

    Returns:
        float64, as the grid.
    """
    rising = np.sort(grid)
    # The first grid point from which on `code` is predicted; len(rising) where it never is. At the threshold itself
    # the two are equal and the lower code is predicted, so a lower rival stays until the next grid point.
    cell = np.searchsorted(rising, threshold, side="left")
    rival_keeps = np.where(rival < code, rising[np.minimum(cell, len(rising) - 1)] == threshold, False)
    classes, place = len(support), (cell + rival_keeps) * len(support) + rival

    def moved(counted: npt.NDArray[np.bool_] | Floats | None = None) -> Floats:
        """How many images each rival has lost to `code` at each grid point, by what each counts: (grid, classes)."""
        counts = np.bincount(place, counted, (len(rising) + 1) * classes)
        return counts.reshape(-1, classes).cumsum(axis=0)[:-1]

    of_rival = belongs[np.arange(len(rival)), rival]
    lost = moved()
    predicted = np.bincount(rival, minlength=classes) - lost
    hits = np.bincount(rival, of_rival, classes) - moved(of_rival)
    predicted[:, code] = lost.sum(axis=1)
    hits[:, code] = moved(belongs[:, code]).sum(axis=1)
    return _f1(hits, predicted, support).mean(axis=1)[np.searchsorted(rising, grid)]


def _macro_f1(predicted: Codes, belongs: Belonging, support: Counts) -> float:
    """The macro-F1 of predicted classes."""
    classes = len(support)
    hits = np.bincount(predicted, belongs[np.arange(len(predicted)), predicted], classes)
    return float(_f1(hits, np.bincount(predicted, minlength=classes), support).mean())


def _f1(hits: Counts, predicted: Counts, support: Counts) -> Floats:
    """F1 of classes by their hits, the number of their predictions and of their images, (..., classes)."""
    both = support + predicted
    return np.divide(2 * hits, both, out=np.zeros(both.shape), where=both > 0)


def _log(probabilities: npt.NDArray[np.floating]) -> Floats:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))
