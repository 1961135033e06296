"""From the probabilities of a group's images to those of the group.

The noisy-or is that of Pearl, "Probabilistic reasoning in intelligent systems" (1988), over the images of a group as in
multiple-instance learning (Zhang, Platt and Viola, "Multiple instance boosting for object detection", NIPS 2005).
"""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import Pooling
from foldvote.evaluation.metrics import SMALLEST
from foldvote.evaluation.probabilities import softmax

Floats = npt.NDArray[np.floating]
Codes = npt.NDArray[np.integer]
POOLINGS: tuple[str, ...] = get_args(Pooling)  # from the simplest on
POWERS = (0, 1, 2, 4, 8, 16)


def pool(probabilities: Floats, starts: Codes, params: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """The probabilities of every group.

    Args:
        probabilities: of images, shape (images, classes), rows sum to 1; the images of a group stand together.
        starts: the first row of each group, int (groups,), rising from 0.
        params: `kind`, a name in POOLINGS, and for `weighted` the `power` that `fit_pooling` found.

    Returns:
        float64 (groups, classes); rows sum to 1. A group of one image has the probabilities of this image.
    """
    rows = np.asarray(probabilities, np.float64)
    counts = np.diff(starts, append=len(rows))
    kind = params["kind"]
    if kind == "geometric":
        logs = np.log(np.clip(rows, SMALLEST, 1.0))
        pooled = softmax(np.add.reduceat(logs, starts, axis=0) / counts[:, None])
    elif kind == "maximum":
        pooled = _normalized(np.maximum.reduceat(rows, starts, axis=0))
    elif kind == "noisy_or":
        none = np.log1p(-np.clip(rows, 0.0, 1.0 - SMALLEST))
        pooled = _normalized(-np.expm1(np.add.reduceat(none, starts, axis=0)))
    else:
        certainty = rows.max(axis=1, keepdims=True) ** (params["power"] if kind == "weighted" else 0)
        pooled = _normalized(np.add.reduceat(rows * certainty, starts, axis=0))
    single = counts == 1
    pooled[single] = rows[np.asarray(starts)[single]]
    return pooled


def fit_pooling(kind: str, probabilities: Floats, starts: Codes, labels: Codes) -> dict[str, Any]:
    """What a kind of pooling needs; `weighted` weighs an image by a power of its largest probability.

    Args:
        kind: a name in POOLINGS.
        probabilities: of images, as for `pool`.
        starts: the first row of each group, int (groups,).
        labels: the true code of each group, int (groups,).

    Returns:
        Plain JSON: `kind`, and for `weighted` as `power` the one of POWERS with the lowest log-loss over groups; of
        equal ones the lowest, so that 0, which is the mean, comes first.
    """
    if kind != "weighted":
        return {"kind": kind}
    losses = []
    for power in POWERS:
        pooled = pool(probabilities, starts, {"kind": kind, "power": power})
        of_label = pooled[np.arange(len(labels)), labels]
        losses.append(float(-np.log(np.clip(of_label, SMALLEST, 1.0)).mean()))
    return {"kind": kind, "power": POWERS[int(np.argmin(losses))]}


def _normalized(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values / values.sum(axis=1, keepdims=True)
