"""From probabilities to a class: the most probable one, or after offsets a class that raise macro-F1.

Macro-F1 counts a rare class as much as a frequent one, and the most probable class is not the best answer for it
(Lipton, Elkan and Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", ECML 2014).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.metrics import SMALLEST, macro_f1

Floats = npt.NDArray[np.float64]
LIMIT = 1.5  # nats: no class counts more than 4.5 times its probability
STEPS = 30  # grid points on each side of 0
SWEEPS = 5
SHRINK = 0.001  # macro-F1 that each nat of an offset must bring, so that a few images of a rare class do not move it


def predict_classes(
    probabilities: npt.NDArray[np.floating], offsets: Sequence[float] | None = None
) -> npt.NDArray[np.int64]:
    """The class of each image: the greatest log-probability plus offset; of equal ones the lowest code.

    Args:
        probabilities: shape (images, classes).
        offsets: nats a class; None: none, the most probable class.

    Returns:
        int64 (images,).
    """
    if offsets is None:
        return np.asarray(probabilities).argmax(axis=1)
    return (_logs(probabilities) + np.asarray(offsets, np.float64)).argmax(axis=1)


def fit_offsets(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[float]:
    """Offsets that raise macro-F1, by coordinate ascent over a grid of -1.5 to 1.5 nats.

    Each class in turn takes the grid's best offset, all others fixed, in at most 5 sweeps; a nat must bring 0.001 of
    macro-F1, and of equally good offsets the nearest to 0 is taken.

    Args:
        probabilities: shape (images, classes).
        labels: true codes, shape (images,).

    Returns:
        One a class. Macro-F1 on these images is never below that of no offsets, which are all 0.
    """
    labels, logs = np.asarray(labels, np.int64), _logs(probabilities)
    classes = logs.shape[1]
    grid = np.round(np.linspace(-LIMIT, LIMIT, 2 * STEPS + 1), 6)
    grid = grid[np.argsort(np.abs(grid), kind="stable")]
    offsets = np.zeros(classes)
    for _ in range(SWEEPS):
        before = offsets.copy()
        for code in range(classes):
            gained = _scores(logs, labels, offsets, code, grid) - SHRINK * np.abs(grid)
            offsets[code] = grid[np.flatnonzero(gained >= gained.max() - 1e-12)[0]]
        if (offsets == before).all():
            break
    plain = macro_f1(labels, predict_classes(probabilities), classes)
    if macro_f1(labels, predict_classes(probabilities, offsets.tolist()), classes) < plain:  # rounding at a tie
        return [0.0] * classes
    return (offsets + 0.0).tolist()


def _scores(logs: Floats, labels: npt.NDArray[np.int64], offsets: Floats, code: int, grid: Floats) -> Floats:
    """Macro-F1 with each offset of the grid for one class: float64 as the grid.

    An image goes to the class once its offset passes the image's border; counting images by the grid's cell that the
    border lies in gives every confusion count at every grid point from one pass over the images.
    """
    classes = logs.shape[1]
    others = logs + offsets
    others[:, code] = -np.inf
    rival = others.argmax(axis=1)
    border = others[np.arange(len(logs)), rival] - logs[:, code]
    rising = np.sort(grid)
    cell = np.searchsorted(rising, border, side="left")
    passed = np.where(rival < code, rising[np.minimum(cell, len(rising) - 1)] == border, False)
    cell += passed  # at the border itself the lower code is chosen

    def taken(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        counts = np.bincount(cell[rows] * classes + rival[rows], minlength=(len(rising) + 1) * classes)
        return counts.reshape(-1, classes).cumsum(axis=0)[:-1]

    support = np.bincount(labels, minlength=classes)
    gone, gone_right = taken(np.ones(len(labels), bool)), taken(rival == labels)
    chosen = np.bincount(rival, minlength=classes) - gone
    hits = np.bincount(rival[rival == labels], minlength=classes) - gone_right
    chosen[:, code] = gone.sum(axis=1)
    hits[:, code] = taken(labels == code).sum(axis=1)
    whole = support + chosen
    f1 = np.divide(2 * hits, whole, out=np.zeros(whole.shape), where=whole > 0).mean(axis=1)
    return f1[np.searchsorted(rising, grid)]


def _logs(probabilities: npt.NDArray[np.floating]) -> Floats:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))
