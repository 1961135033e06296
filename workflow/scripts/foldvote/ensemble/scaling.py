"""Calibration of the submitted vote, which is the mean of all members of a model.

Out-of-fold predictions come from one member per image (with repeats, from one of each repeat). A temperature that is
fitted on them calibrates single members. Their mean is less certain and more often right, and needs a lower one. Where
there is a reserve, the temperature is fitted on it. Otherwise it is derived from the out-of-fold one, and from how far
the members' predictions of the test images are apart; no label of a test image is used.

The derivation takes a member's log-probabilities as a common part plus noise of its own (regression dilution: Spearman,
"The proof and measurement of association between two things", 1904; Carroll et al., "Measurement error in nonlinear
models", 2006). The slope of a noisy predictor is diluted by the share of its variance that is not noise. The mean of n
members has an n-th of the noise, so its slope is larger by V(m)/V(n), where V(n) is the variance of the mean of n
members and m is the number behind each out-of-fold prediction. A mean of overconfident members is less overconfident
than this says, since it is no product of them: of what lies above 1, half is taken.
`benchmarks/calibration_rules.py` compares this with other rules.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.calibration import (
    apply_temperature,
    apply_vector,
    fit_temperature,
    fit_vector,
    match_temperature,
)
from foldvote.evaluation.metrics import SMALLEST
from foldvote.evaluation.probabilities import softmax

Floats = npt.NDArray[np.floating]
Codes = npt.NDArray[np.integer]
Scaling = dict[str, Any]
_TRUST_ABOVE_1 = 0.5
Calibration = Literal["auto", "none", "temperature", "vector"]


def fit_scaling(probabilities: Floats, labels: Codes, method: Calibration, source: str) -> Scaling:
    """Fit a calibration on labelled images.

    Args:
        probabilities: shape (images, classes), rows sum to 1.
        labels: true codes, shape (images,).
        method: temperature or vector scaling; `auto` is a temperature.
        source: what it is fitted on, for the record.

    Returns:
        Plain JSON for `apply_scaling`: `method`, `source`, and `temperature` or `scaling`.
    """
    if method == "none":
        return {"method": "none"}
    if method == "vector":
        return {"method": "vector", "source": source, "scaling": fit_vector(probabilities, labels)}
    return {"method": "temperature", "source": source, "temperature": fit_temperature(probabilities, labels)}


def scaling_of_mean(
    temperature: float, behind: int, singles: Sequence[Floats], vote: Floats, source: str = "spread of the members"
) -> Scaling:
    """Derive the temperature of a vote of all members from that of out-of-fold predictions.

    Args:
        temperature: fitted on out-of-fold predictions.
        behind: number of members behind each of these, the number of repeats.
        singles: what the vote gives for the members of each fold alone, each (images, classes); images without labels.
        vote: what it gives for all members, of the same images.
        source: what it is derived from, for the record.

    Returns:
        As `fit_scaling`. With a single fold the temperature stays as it is.
    """
    count = len(singles)
    if count < 2:
        return {"method": "temperature", "source": "out-of-fold predictions", "temperature": temperature}
    centre = np.zeros(vote.shape)
    of_single = 0.0
    for probabilities in singles:
        logs = _centred_logs(probabilities)
        centre += logs / count
        of_single += _variance(logs) / count
    of_mean = _variance(centre)
    noise = max(of_single - of_mean, 0.0) * count / (count - 1)  # of one member; the mean holds an n-th of it
    of_behind = of_single - noise * (1 - 1 / behind)
    ratio = of_mean / of_behind if of_behind > 0 else 1.0
    derived = match_temperature(vote, softmax(centre / (temperature * ratio)))
    derived = min(derived, 1 + (derived - 1) * _TRUST_ABOVE_1)
    return {"method": "temperature", "source": source, "temperature": derived}


def apply_scaling(probabilities: Floats, scaling: Scaling) -> npt.NDArray[np.float64]:
    """The probabilities after a calibration: float64 (images, classes), rows sum to 1."""
    if scaling["method"] == "temperature":
        return apply_temperature(probabilities, scaling["temperature"])
    if scaling["method"] == "vector":
        return apply_vector(probabilities, scaling["scaling"])
    return np.asarray(probabilities, np.float64)


def _centred_logs(probabilities: Floats) -> npt.NDArray[np.float64]:
    logs = np.log(np.clip(np.asarray(probabilities, np.float64), SMALLEST, 1.0))
    return logs - logs.mean(axis=1, keepdims=True)


def _variance(centred: npt.NDArray[np.float64]) -> float:
    """The mean over images of the sum of squares over classes."""
    return float(np.einsum("ij,ij->", centred, centred) / max(len(centred), 1))
