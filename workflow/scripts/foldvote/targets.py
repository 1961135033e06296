"""What a model is trained to say: the labels themselves, or rows of probabilities where a recipe treats them.

For training alone: scores are always on the true labels. Imports no torch.
"""

import numpy as np

from foldvote.errors import Refusal
from foldvote.labels import Scheme
from foldvote.recipes import Treatment

AGE = "age"


def training_targets(
    scheme: Scheme,
    labels: np.ndarray,
    years: np.ndarray | None,
    treatment: Treatment,
    borders: tuple[int, int] | None,
) -> np.ndarray:
    """The targets of a training set.

    Args:
        scheme: the classes; with a treatment, a factor `age` of three levels is among their factors.
        labels: class codes, int64 (N,).
        years: ages, float (N,) with NaN where one is not known; None: none is known. Those keep their label.
        treatment: moved borders and the years around a border in which both bands share the target.
        borders: the data's own borders, for a treatment that moves none.

    Returns:
        `labels` where nothing is treated, else probabilities, float32 (N, classes), whose rows sum to 1: the age band
        follows the years, every other factor the label. From `soft_years` below a border to as many above it the
        older band's share grows in a straight line, and is 0.5 at the border.

    Raises:
        Refusal: if there are no bands to treat, or the borders do not rise.
    """
    if not treatment.active:
        return labels
    low, high = _borders(scheme, treatment, borders)
    count = len(labels)
    targets = np.zeros((count, len(scheme.classes)), np.float32)
    known = np.zeros(count, bool) if years is None else np.isfinite(years)
    targets[np.flatnonzero(~known), labels[~known]] = 1
    if years is None:
        return targets
    older = [_share_above(years[known].astype(np.float64), border, treatment.soft_years) for border in (low, high)]
    shares = np.stack([1 - older[0], older[0] - older[1], older[1]], axis=1)  # the ramps never cross, as low < high
    rows = np.flatnonzero(known)
    for band, share in enumerate(shares.T):
        targets[rows, _with_band(scheme, labels[known], band)] = share
    return targets


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """Images a class.

    Args:
        targets: class codes, int (N,), or probabilities, float (N, classes).
        classes: number of classes.

    Returns:
        int64 (classes,) for codes; float64 (classes,) for probabilities: sums of columns, to six decimals, so that
        the rounding of float32 does not show.
    """
    if targets.ndim == 1:
        return np.bincount(targets, minlength=classes).astype(np.int64)
    return targets.sum(axis=0, dtype=np.float64).round(6)


def _borders(scheme: Scheme, treatment: Treatment, own: tuple[int, int] | None) -> tuple[float, float]:
    """The borders to train with."""
    if len(scheme.factors.get(AGE, ())) != 3:
        raise Refusal("labels: age_borders and soft_years need the home task's factor age; drop them from this model")
    borders = treatment.age_borders or own
    if borders is None:
        raise Refusal("labels.soft_years: the data have no age borders of their own; give labels.age_borders")
    if not borders[0] < borders[1]:
        raise Refusal(f"labels.age_borders: {list(borders)} do not rise; put the lower border first")
    return borders


def _share_above(years: np.ndarray, border: float, soft: float) -> np.ndarray:
    """Share of each age that counts as above the border: a step, or a ramp of 2 * soft years; float64 (N,)."""
    if soft == 0:
        return (years >= border).astype(np.float64)
    with np.errstate(over="ignore"):  # a ramp of next to no years is a step
        return np.clip(0.5 + (years - border) / (2 * soft), 0, 1)


def _with_band(scheme: Scheme, labels: np.ndarray, band: int) -> np.ndarray:
    """The class of each label with its age band exchanged."""
    names = list(scheme.factors)
    step = int(np.prod([len(scheme.factors[name]) for name in names[names.index(AGE) + 1 :]], dtype=np.int64))
    return labels + (band - scheme.level_codes(AGE)[labels]) * step
