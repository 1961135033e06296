"""From the logits of several members to one probability per class: softmax, and means over views, folds and models.

Sums are in float64 and over sorted terms, so that a mean does not depend on the order of its members.
"""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
_PIECE = 4_096  # images sorted at once, so that they stay in the processor's cache


def softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """Probabilities of finite logits along the last axis, in float64, without overflow.

    Args:
        logits: any float type, shape (..., classes).

    Returns:
        float64 of the same shape; the last axis sums to 1.
    """
    logits = np.asarray(logits, dtype=np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


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
        total[piece] = np.sort(members[:, piece] * factors[:, None, None], axis=0).sum(axis=0)
    return total / len(members) if weights is None else total
