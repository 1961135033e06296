"""From the logits of several members to one probability per class: softmax, and means over views, folds and models.

Sums are in float64 and over sorted terms, so that a mean does not depend on the order of its members.
"""

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
_PIECE = 4_096  # images sorted at once, so that they stay in the processor's cache
_FEW = 8  # members up to which a sorting network is faster than numpy's sort


def softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """Probabilities of finite logits along the last axis, in float64, without overflow.

    Args:
        logits: any float type, shape (..., classes).

    Returns:
        float64 of the same shape; the last axis sums to 1.
    """
    logits = np.asarray(logits, dtype=np.float64)
    powers = logits - largest(logits)[..., None]
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def largest(values: Floats) -> Floats:
    """The largest value along the last axis, as `values.max(axis=-1)`: numpy takes six times as long for a short axis.

    Args:
        values: shape (..., classes), at least one class.
    """
    rows = np.ascontiguousarray(values).reshape(-1)
    starts = np.arange(0, rows.size, values.shape[-1])
    found: Floats = np.maximum.reduceat(rows, starts) if rows.size else rows
    return found.reshape(values.shape[:-1])


def weighted_mean(members: Floats, weights: Iterable[float] | None = None) -> npt.NDArray[np.float64]:
    """The weighted mean of members' probabilities.

    The mean of one member is exactly that member, and the order of the members (with their weights) changes no bit.

    Args:
        members: probabilities, shape (members, images, classes).
        weights: one per member, none negative, with the sum 1; None: all equal.

    Returns:
        float64 of shape (images, classes); rows sum to 1 where those of the members do.

    Raises:
        ValueError: if there is no member, or the weights do not fit.
    """
    members = np.asarray(members)
    if members.ndim != 3 or not len(members):
        raise ValueError(f"members have the shape {members.shape}, expected (members >= 1, images, classes)")
    factors = np.ones(len(members)) if weights is None else np.asarray(list(weights), dtype=np.float64)
    if weights is not None and (
        factors.shape != (len(members),) or not (factors >= 0).all() or not math.isclose(math.fsum(factors), 1)
    ):
        raise ValueError(f"weights {factors.tolist()} must be {len(members)} numbers from 0 up with the sum 1")
    total = np.empty(members.shape[1:])
    for start in range(0, len(total), _PIECE):
        piece = slice(start, start + _PIECE)
        terms = _sorted(members[:, piece] * factors[:, None, None])
        np.add.reduce(terms, axis=0, out=total[piece])
    if weights is None:
        total /= len(members)
    return total


def _sorted(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Terms in rising order along the first axis; the array given may be overwritten."""
    if len(terms) > _FEW:
        return np.sort(terms, axis=0)
    lower = np.empty_like(terms[0])
    for end in range(len(terms) - 1, 0, -1):  # as bubble sort
        for one, other in pairwise(terms[: end + 1]):
            np.minimum(one, other, out=lower)
            np.maximum(one, other, out=other)
            one[:] = lower
    return terms
