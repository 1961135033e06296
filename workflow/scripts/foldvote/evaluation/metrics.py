"""Scores of predictions against true labels, in numpy alone: macro-F1, accuracy, log-loss, and where they come from.

Every score counts all classes of the task. A class that is neither present nor predicted scores 0 in macro-F1, as in
scikit-learn's `f1_score(labels=<all codes>, average="macro", zero_division=0)`, against which the tests hold these.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.data.label_space import LabelSpace

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
SMALLEST = float(np.finfo(np.float64).eps)  # probabilities below it count as it, so that one miss is not infinite


def confusion(labels: Codes, predicted: Codes, classes: int) -> npt.NDArray[np.int64]:
    """Count every pair of a true and a predicted class.

    Args:
        labels: true codes, shape (images,).
        predicted: predicted codes, shape (images,).
        classes: number of classes C.

    Returns:
        int64 array of shape (C, C): rows are true classes, columns are predicted ones.

    Raises:
        ValueError: if the shapes differ or a code is not in 0..C-1.

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    labels, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and predictions {predicted.shape} must be one row of equal length")
    for name, codes in (("labels", labels), ("predictions", predicted)):
        if codes.size and (codes.min() < 0 or codes.max() >= classes):
            raise ValueError(f"{name} run from {codes.min()} to {codes.max()}, outside 0 to {classes - 1}")
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_scores(counts: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Precision, recall, F1 and support of every class.

    Args:
        counts: a confusion matrix, shape (C, C).

    Returns:
        `precision`, `recall`, `f1` (float64) and `support` (int64), each of shape (C,); 0 where nothing is divided.
    """
    hits, support, chosen = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return {
        "precision": _share(hits, chosen),
        "recall": _share(hits, support),
        "f1": _share(2 * hits, support + chosen),
        "support": support,
    }


def macro_f1(labels: Codes, predicted: Codes, classes: int) -> float:
    """Mean F1 over all classes, 0 for a class that is never hit. Arguments as in `confusion`."""
    return float(class_scores(confusion(labels, predicted, classes))["f1"].mean())


def accuracy(labels: Codes, predicted: Codes) -> float:
    """Share of images whose class is right; 0.0 when there are no images."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted))) if len(labels) else 0.0


def balanced_accuracy(labels: Codes, predicted: Codes, classes: int) -> float:
    """Mean recall over the classes that are present; 0.0 when there are no images. Arguments as in `confusion`."""
    by_class = class_scores(confusion(labels, predicted, classes))
    present = by_class["support"] > 0
    return float(by_class["recall"][present].mean()) if present.any() else 0.0


def log_loss(labels: Codes, probabilities: Floats) -> float:
    """Mean negative natural logarithm of the true class's probability, in nats; 0.0 when there are no images.

    Args:
        labels: true codes, shape (images,).
        probabilities: shape (images, classes), rows sum to 1. Values are clipped at 2.2e-16, so that a certain
            wrong answer costs 36 nats and not infinity.
    """
    if not len(labels):
        return 0.0
    own = np.asarray(probabilities, dtype=np.float64)[np.arange(len(labels)), np.asarray(labels, dtype=np.int64)]
    # fsum: the exact sum does not depend on the order of the images.
    return -math.fsum(np.log(np.clip(own, SMALLEST, 1.0)).tolist()) / len(labels)


def factor_scores(labels: Codes, probabilities: Floats, scheme: LabelSpace) -> dict[str, dict[str, float]]:
    """Accuracy and macro-F1 of each factor on its own.

    A level's probability is the sum over the classes that share it, so that the level chosen can differ from the level
    of the class chosen.

    Returns:
        For each factor `accuracy` and `macro_f1`; empty when the classes are not made up of factors.
    """
    scores = {}
    for name, levels in scheme.factors.items():
        of_class = scheme.level_codes(name)
        summed = np.asarray(probabilities, dtype=np.float64) @ np.eye(len(levels))[of_class]
        true, chosen = of_class[np.asarray(labels, dtype=np.int64)], summed.argmax(axis=1)
        scores[name] = {"accuracy": accuracy(true, chosen), "macro_f1": macro_f1(true, chosen, len(levels))}
    return scores


def score(labels: Codes, probabilities: Floats, scheme: LabelSpace, predicted: Codes | None = None) -> dict[str, Any]:
    """Everything that is known about some predictions.

    Args:
        labels: true codes, shape (images,), each in 0..C-1.
        probabilities: shape (images, C), rows sum to 1. Of equal probabilities the lowest code is the prediction.
        scheme: the classes.
        predicted: the classes that were chosen, where it was not by the largest probability.

    Returns:
        A JSON-able dict: `images`, `macro_f1`, `accuracy`, `log_loss`; `classes` with precision, recall, f1 and
        support by class name; `factors` as `factor_scores` gives them; `confusion`, rows true and columns predicted.

    Raises:
        ValueError: if the shapes do not go together or a label is not a code of the scheme.
    """
    labels, number = np.asarray(labels), len(scheme.classes)
    if np.shape(probabilities) != (len(labels), number):
        raise ValueError(f"probabilities have the shape {np.shape(probabilities)}, expected {(len(labels), number)}")
    counts = confusion(labels, np.asarray(probabilities).argmax(axis=1) if predicted is None else predicted, number)
    by_class = class_scores(counts)
    return {
        "images": len(labels),
        "macro_f1": float(by_class["f1"].mean()),
        "accuracy": float(np.trace(counts) / len(labels)) if len(labels) else 0.0,
        "log_loss": log_loss(labels, probabilities),
        "classes": {
            name: {key: values[code].item() for key, values in by_class.items()}
            for code, name in enumerate(scheme.classes)
        },
        "factors": factor_scores(labels, probabilities, scheme),
        "confusion": counts.tolist(),
    }


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
