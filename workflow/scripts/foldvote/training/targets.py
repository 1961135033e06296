"""What training images are taught as: their labels, or probabilities where age borders are moved or soft."""

import numpy as np

from foldvote.config.layout_facts import NumericFactor
from foldvote.config.treatment import Treatment
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError


def training_targets(
    label_space: LabelSpace,
    labels: np.ndarray,
    years: np.ndarray | None,
    treatment: Treatment,
    numeric: NumericFactor | None,
) -> np.ndarray:
    """Compute the training targets from the labels.

    Args:
        label_space: the classes; with a treatment, `numeric` is among their factors and has three levels.
        labels: class codes, int64 (N,).
        years: the number of each image, such as the age in years, float (N,) with NaN if unknown; None if all are
            unknown. An image with unknown number keeps its label, and so does one whose number lies in another band of
            the data than its label: the label was corrected, and the number was not.
        treatment: moved age borders, and the number of years around a border in which both bands share the target.
        numeric: the factor that bins the number, or None; its borders are used if the treatment moves none.

    Returns:
        `labels` without a treatment. Otherwise probabilities, float32 (N, classes), rows sum to 1: the age band comes
        from `years`, every other factor from the label. The share of the older band grows linearly from `soft_years`
        below a border to `soft_years` above it, and is 0.5 at the border. A whole number of years counts as the middle
        of that year, as ages are given in completed years: who is 29 and who is 30 are equally far from a border at 30.

    Raises:
        UserError: if the classes have no three age bands, or the borders do not increase.
    """
    if not treatment.active:
        return labels
    name, (low, high) = _borders(label_space, treatment, numeric)
    count = len(labels)
    targets = np.zeros((count, len(label_space.classes)), np.float32)
    known = np.zeros(count, bool)
    if years is not None and numeric is not None:
        in_band = np.searchsorted(numeric.borders, years, side="right") == label_space.level_codes(name)[labels]
        known = np.isfinite(years) & in_band
    targets[np.flatnonzero(~known), labels[~known]] = 1
    if years is None:
        return targets
    own = years[known].astype(np.float64)
    middle, oldest = (_share_above(own, border, soft) for border, soft in zip((low, high), treatment.soft, strict=True))
    oldest = np.minimum(oldest, middle)  # ramps of two lengths may cross
    shares = np.stack([1 - middle, middle - oldest, oldest], axis=1)
    rows = np.flatnonzero(known)
    for band, share in enumerate(shares.T):
        targets[rows, _with_band(label_space, name, labels[known], band)] = share
    return targets


def class_counts(targets: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Number of training images per class, each counted by its weight if they have weights.

    Args:
        targets: class codes, int (N,), or probabilities, float (N, classes).
        classes: number of classes.
        weights: of the images, float (N,), for probabilities; None: each counts 1.

    Returns:
        int64 (classes,) for codes. For probabilities float64 (classes,), the column sums, rounded to six decimals to
        remove float32 rounding errors.
    """
    if targets.ndim == 1:
        return np.bincount(targets, minlength=classes).astype(np.int64)
    if weights is not None:
        targets = targets * weights[:, None]
    return targets.sum(axis=0, dtype=np.float64).round(6)


def _borders(
    label_space: LabelSpace, treatment: Treatment, numeric: NumericFactor | None
) -> tuple[str, tuple[float, ...]]:
    """The factor whose bands are treated, and the borders to train with: those of the treatment, else of the data."""
    if numeric is None or len(label_space.factors.get(numeric.name, ())) != 3:
        raise UserError("labels: age_borders and soft_years need the home task's factor age; drop them from this model")
    borders = treatment.age_borders or numeric.borders
    if not borders[0] < borders[1]:
        raise UserError(f"labels.age_borders: {list(borders)} do not rise; put the lower border first")
    return numeric.name, borders


def _share_above(years: np.ndarray, border: float, soft: float) -> np.ndarray:
    """Share of each age that counts as above the border, float64 (N,): a step, or a linear ramp of 2 * soft years."""
    if soft == 0:
        return (years >= border).astype(np.float64)
    exact = np.where(years == np.floor(years), years + 0.5, years)
    with np.errstate(over="ignore"):  # a ramp of almost no years is a step
        return np.clip(0.5 + (exact - border) / (2 * soft), 0, 1)


def _with_band(label_space: LabelSpace, factor: str, labels: np.ndarray, band: int) -> np.ndarray:
    """The class codes of `labels` with the level of one factor replaced by `band`: int64 (N,)."""
    names = list(label_space.factors)
    step = int(np.prod([len(label_space.factors[name]) for name in names[names.index(factor) + 1 :]], dtype=np.int64))
    return labels + (band - label_space.level_codes(factor)[labels]) * step
