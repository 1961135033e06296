"""Calibration: how it is measured (ECE, Brier score, reliability), and temperature and vector scaling.

Both scalings (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) work on the logarithms of
probabilities, so that they apply to a mean of many members as well as to a single softmax.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.evaluation.metrics import SMALLEST, Codes, Floats
from foldvote.evaluation.probabilities import largest, softmax
from foldvote.runtime.seeding import generator

Method = Literal["temperature", "vector"]
BINS = 15
LOWEST, HIGHEST = 0.05, 20.0  # bounds of a temperature, and of the weights of vector scaling
MOST_IMAGES = 100_000  # a fit of at most 2 numbers per class gains nothing from more
PULL = 10.0  # strength of vector scaling's pull to the identity: about as much as so many images of a class
_PIECE = 4_096  # images scaled at once
_FLAT = 1e-9  # nats: with a smaller slope of the loss there is nothing to fit


def confidence_bins(confidence: Floats, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each confidence, 0..bins-1. Bins are equal parts of (0, 1], open below; 0 is in the first."""
    return np.clip(np.searchsorted(_edges(bins), np.asarray(confidence, np.float64)) - 1, 0, bins - 1)


def reliability(labels: Codes, probabilities: Floats, bins: int = BINS) -> pd.DataFrame:
    """The reliability table: confidence and accuracy of the predictions, by bins of their confidence.

    Args:
        labels: true codes, shape (images,), each in 0..C-1.
        probabilities: shape (images, C), rows sum to 1.
        bins: number of equal parts of (0, 1], by the probability of the predicted class.

    Returns:
        One row per bin: `bin`, `low` (excluded), `high`, `images` and the means `confidence` and `accuracy`, NaN in an
        empty bin.

    Raises:
        ValueError: if shapes do not go together, a label is out of range or a value is not a probability.
    """
    labels, probabilities = checked(labels, probabilities)
    confidence = probabilities.max(axis=1)
    bin_of = confidence_bins(confidence, bins)
    images = np.bincount(bin_of, minlength=bins)
    sums = {
        "confidence": np.bincount(bin_of, confidence, bins),
        "accuracy": np.bincount(bin_of, probabilities.argmax(axis=1) == labels, bins),
    }
    edges = _edges(bins)
    means = {name: np.divide(of, images, out=np.full(bins, np.nan), where=images > 0) for name, of in sums.items()}
    return pd.DataFrame({"bin": np.arange(bins), "low": edges[:-1], "high": edges[1:], "images": images, **means})


def ece(labels: Codes, probabilities: Floats, bins: int = BINS) -> float:
    """Expected calibration error: the mean over images of |accuracy - confidence| of their bin, from 0 to 1.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015. 0.0 without images.
    It is biased upwards where bins hold few images.

    Args:
        labels: true codes, shape (images,), each in 0..C-1.
        probabilities: shape (images, C), rows sum to 1.
        bins: number of bins.

    Raises:
        ValueError: if shapes do not go together, a label is out of range or a value is not a probability.
    """
    table = reliability(labels, probabilities, bins)
    gaps = (table["accuracy"] - table["confidence"]).abs().fillna(0.0)
    return float((gaps * table["images"]).sum() / max(1, table["images"].sum()))


def brier(labels: Codes, probabilities: Floats) -> float:
    """Brier score of many classes (1950): mean squared distance to the true class, from 0 to 2; 0.0 without images.

    Args:
        labels: true codes, shape (images,), each in 0..C-1.
        probabilities: shape (images, C), rows sum to 1.

    Raises:
        ValueError: if shapes do not go together, a label is out of range or a value is not a probability.
    """
    labels, probabilities = checked(labels, probabilities)
    return float(squared_distances(labels, probabilities).mean()) if len(labels) else 0.0


def squared_distances(labels: Codes, probabilities: Floats) -> npt.NDArray[np.float64]:
    """Each image's sum over classes of (probability - truth)^2, shape (images,)."""
    apart = np.array(probabilities, dtype=np.float64)
    apart[np.arange(len(apart)), labels] -= 1
    return np.einsum("ij,ij->i", apart, apart)


def fit_temperature(probabilities: Floats, labels: Codes, most_images: int = MOST_IMAGES) -> float:
    """The temperature that minimises the log-loss of `apply_temperature`.

    The loss is convex in 1/T, so that its slope has one root at most, which Brent's method finds between the bounds.

    Args:
        probabilities: shape (images, C), rows sum to 1; values below 2.2e-16 count as it.
        labels: true codes, shape (images,), each in 0..C-1.
        most_images: of more images, a draw of this size is used, which depends on their number alone.

    Returns:
        T from 0.05 to 20: a bound where the loss falls all the way to it (every image right), and 1.0 where there is
        nothing to fit: no image, equal probabilities, or all right with certainty.

    Raises:
        ValueError: if shapes do not go together, a label is out of range or a value is not a probability.
    """
    labels, probabilities = checked(labels, probabilities)
    drawn = _drawn(len(labels), most_images)
    labels, probabilities = labels[drawn], probabilities[drawn]
    if not len(labels):
        return 1.0
    logs = _logs(probabilities)
    return _best_temperature(logs, logs[np.arange(len(labels)), labels].mean())


def match_temperature(probabilities: Floats, target: Floats) -> float:
    """The temperature that brings probabilities nearest to others, in mean cross-entropy.

    Args:
        probabilities: shape (images, C), rows sum to 1.
        target: the probabilities to come near to, of the same shape.

    Returns:
        T as in `fit_temperature`; 1.0 without images.
    """
    if not len(probabilities):
        return 1.0
    logs = _logs(probabilities)
    return _best_temperature(logs, float(np.einsum("ij,ij->i", np.asarray(target, np.float64), logs).mean()))


def _best_temperature(logs: npt.NDArray[np.float64], of_target: float) -> float:
    """The root of the slope of the loss by 1/T, where `of_target` is the mean log-probability of the target."""
    from scipy.optimize import brentq  # slow to import, and not needed for scores

    highest, powers = largest(logs), np.empty_like(logs)

    def slope(inverse: float) -> float:
        """The derivative of the mean log-loss by 1/T."""
        # As softmax(inverse * logs), whose largest values are known, without new arrays.
        np.multiply(logs, inverse, out=powers)
        np.subtract(powers, (highest * inverse)[:, None], out=powers)
        np.exp(powers, out=powers)
        np.divide(powers, powers.sum(axis=1, keepdims=True), out=powers)
        return float(np.einsum("ij,ij->", powers, logs) / len(logs) - of_target)

    if abs(slope(1.0)) < _FLAT:
        return 1.0
    flat, steep = 1 / HIGHEST, 1 / LOWEST
    if slope(flat) >= 0:
        return HIGHEST
    if slope(steep) <= 0:
        return LOWEST
    return float(1 / brentq(slope, flat, steep, xtol=1e-9, rtol=1e-9))


def apply_temperature(probabilities: Floats, t: float) -> npt.NDArray[np.float64]:
    """softmax(log(probabilities) / t), float64 of the same shape.

    The order of the classes stays; t > 1 makes the probabilities less confident.

    Raises:
        ValueError: if t is not a number above 0.
    """
    if not 0 < t < np.inf:
        raise ValueError(f"temperature {t} must be above 0")
    return _in_pieces(probabilities, lambda piece: softmax(_logs(piece) / t))


def fit_vector(
    probabilities: Floats, labels: Codes, most_images: int = MOST_IMAGES, pull: float = PULL
) -> dict[str, list[float]]:
    """A weight and a bias for each class that minimise the log-loss of `apply_vector`, with a pull to the identity.

    The sum over the images of the log-loss + pull/2 * (|weights - 1|^2 + |biases|^2) is minimised, in nats. It is
    convex. For a class without images the pull decides; the more images, the less it matters.

    Args:
        probabilities: shape (images, C), rows sum to 1; values below 2.2e-16 count as it.
        labels: true codes, shape (images,), each in 0..C-1.
        most_images: of more images, a draw of this size is used, which depends on their number alone.
        pull: above 0.

    Returns:
        `weights` (each from 0.05 to 20) and `biases` (nats), lists of C floats; 1 and 0 without images.

    Raises:
        ValueError: if shapes do not go together, a label is out of range, a value is not a probability, or the pull is
            not above 0.
    """
    from scipy.optimize import minimize  # slow to import

    if not pull > 0:
        raise ValueError(f"the pull {pull} must be above 0")
    labels, probabilities = checked(labels, probabilities)
    drawn = _drawn(len(labels), most_images)
    labels, probabilities = labels[drawn], probabilities[drawn]
    images, classes = probabilities.shape
    identity = np.concatenate([np.ones(classes), np.zeros(classes)])
    if not images:
        return _vector(identity)
    logs, rows = _logs(probabilities), np.arange(images)

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, biases = np.split(values, 2)
        scaled = logs * weights + biases
        scaled -= scaled.max(axis=1, keepdims=True)
        of_labels = scaled[rows, labels].sum()
        powers = np.exp(scaled, out=scaled)
        totals = powers.sum(axis=1)
        excess = np.divide(powers, totals[:, None], out=powers)
        excess[rows, labels] -= 1
        gradient = np.concatenate([np.einsum("ij,ij->j", excess, logs), excess.sum(axis=0)])
        away = values - identity
        return (np.log(totals).sum() - of_labels + pull / 2 * away @ away) / images, (gradient + pull * away) / images

    bounds = [(LOWEST, HIGHEST)] * classes + [(None, None)] * classes
    options = {"maxiter": 1000, "ftol": 1e-11, "gtol": 1e-7}
    return _vector(minimize(loss, identity, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x)


def apply_vector(probabilities: Floats, scaling: dict[str, list[float]]) -> npt.NDArray[np.float64]:
    """softmax(weights * log(probabilities) + biases), float64 of the same shape (images, C).

    Args:
        probabilities: shape (images, C), rows sum to 1.
        scaling: what `fit_vector` returned.
    """
    weights, biases = np.asarray(scaling["weights"]), np.asarray(scaling["biases"])
    return _in_pieces(probabilities, lambda piece: softmax(_logs(piece) * weights + biases))


def calibrate_nested(
    probabilities: Floats, labels: Codes, folds: Codes, method: Method = "temperature"
) -> npt.NDArray[np.float64]:
    """Calibrate every fold by a fit on the other folds only, so that no label helps to calibrate its own image.

    So scores after calibration are not optimistic. The networks behind the other folds' rows have still seen this fold
    in training; only a nested cross-validation that trains them anew would avoid that.

    Args:
        probabilities: out-of-fold, shape (images, C), rows sum to 1.
        labels: true codes, shape (images,), each in 0..C-1.
        folds: the fold of each image, shape (images,).
        method: `temperature` or `vector`.

    Returns:
        float64 of shape (images, C), rows sum to 1. Where there is one fold only, its probabilities stay as they are.

    Raises:
        ValueError: if shapes do not go together, a label is out of range, a value is not a probability, or the method
            is not known.
    """
    if method not in ("temperature", "vector"):
        raise ValueError(f"method {method!r} is none of temperature, vector")
    labels, probabilities = checked(labels, probabilities)
    folds = np.asarray(folds)
    if folds.shape != labels.shape:
        raise ValueError(f"folds {folds.shape} must be as many as labels {labels.shape}")
    calibrated = probabilities.copy()
    for fold in np.unique(folds):
        out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if not len(others):
            break
        others = others[_drawn(len(others), MOST_IMAGES)]
        if method == "temperature":
            calibrated[out] = apply_temperature(
                probabilities[out], fit_temperature(probabilities[others], labels[others])
            )
        else:
            calibrated[out] = apply_vector(probabilities[out], fit_vector(probabilities[others], labels[others]))
    return calibrated


def checked(labels: Codes, probabilities: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Labels as int64 and probabilities as float64.

    Raises:
        ValueError: if shapes do not go together, a label is out of range or a value is not a probability.
    """
    codes, values = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if codes.ndim != 1 or values.ndim != 2 or len(codes) != len(values):
        raise ValueError(f"labels {codes.shape} and probabilities {values.shape} do not go together")
    if codes.size and not (codes.min() >= 0 and codes.max() < values.shape[1]):
        raise ValueError(f"labels run from {codes.min()} to {codes.max()}, of {values.shape[1]} classes")
    if codes.size and not (values.min() >= 0 and values.max() <= 1 + 1e-6):  # false of NaN
        raise ValueError(f"probabilities run from {values.min()} to {values.max()}, outside 0 to 1")
    return codes, values


def _edges(bins: int) -> npt.NDArray[np.float64]:
    return np.linspace(0.0, 1.0, bins + 1)


def _logs(probabilities: Floats) -> npt.NDArray[np.float64]:
    return np.log(np.clip(np.asarray(probabilities, np.float64), SMALLEST, 1.0))


def _in_pieces(probabilities: Floats, scale: Callable[[Floats], npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """What `scale` gives for a few images at a time, float64 (images, C): its arrays stay in the processor's cache."""
    scaled = np.empty(np.shape(probabilities))
    for start in range(0, len(scaled), _PIECE):
        scaled[start : start + _PIECE] = scale(probabilities[start : start + _PIECE])
    return scaled


def _drawn(images: int, most: int) -> npt.NDArray[np.int64] | slice:
    """A fixed draw of at most `most` images, which depends on their number alone and not on their labels."""
    if images <= most:
        return slice(None)
    return np.sort(generator(0, "calibration", images).choice(images, most, replace=False, shuffle=False))


def _vector(values: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    weights, biases = np.split(values, 2)
    return {"weights": weights.tolist(), "biases": biases.tolist()}
