"""Validation at the end of an epoch, and what follows from its scores: the best epoch, an early end."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from foldvote.config.metric_names import LOSS, higher_is_better, metric_key
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.data.packed_images import PackedImages
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.evaluation.metrics import accuracy, balanced_accuracy, log_loss, macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import IDENTITY, View
from foldvote.runtime.device import Device


def validate(
    model: nn.Module,
    images: PackedImages,
    rows: pd.DataFrame,
    label_space: LabelSpace,
    device: Device,
    batch_size: int,
    metrics: Sequence[Metric] = (),
    view: View = IDENTITY,
    metadata: np.ndarray | None = None,
) -> tuple[dict[str, float], np.ndarray]:
    """Score a network on the true labels of images that it does not learn from, without augmentation.

    Args:
        model: placed on the device.
        images: packed images.
        rows: rows of folds.FOLDS, one per validation image.
        label_space: the classes.
        device: where and how; each process of a group predicts its shard of the images.
        batch_size: images in one forward pass.
        metrics: what is scored in addition.
        view: how the network sees the images.
        metadata: of all of `images`, as of `predict_logits`.

    Returns:
        As `score_logits`.
    """
    places = images.rows(rows["image_id"].tolist())
    logits = device.group.map_sharded(
        lambda shard: predict_logits(model, images, shard, [view], device, batch_size, metadata=metadata)[view.name],
        places,
    )
    return score_logits(logits, rows["label"].to_numpy(np.int64), label_space, metrics)


def score_logits(
    logits: np.ndarray, labels: np.ndarray, label_space: LabelSpace, metrics: Sequence[Metric] = ()
) -> tuple[dict[str, float], np.ndarray]:
    """The validation scores of logits.

    Args:
        logits: float (rows, classes).
        labels: true codes, int64 (rows,).
        label_space: the classes.
        metrics: what is scored in addition.

    Returns:
        The scores val_loss (nats), val_macro_f1, val_accuracy, val_balanced_accuracy and val_<metric> of each metric,
        each over all rows at once, NaN for a metric that is not defined for these rows; and the predicted codes, int64
        (rows,).
    """
    probabilities = softmax(logits)
    predicted, classes = probabilities.argmax(axis=1), len(label_space.classes)
    scores = {
        "val_loss": log_loss(labels, probabilities),
        "val_macro_f1": macro_f1(labels, predicted, classes),
        "val_accuracy": accuracy(labels, predicted),
        "val_balanced_accuracy": balanced_accuracy(labels, predicted, classes),
    }
    answers, is_finite = Answers(labels, probabilities, predicted), bool(np.isfinite(probabilities).all())
    for metric in metrics:
        if (column := history_column(metric.name)) not in scores:
            scores[column] = metric.value(answers, label_space) if is_finite else math.nan
    return scores, predicted


def selection_score(row: dict[str, Any], recipe: Recipe) -> float:
    """The score by which the recipe chooses epochs: higher is better, so a loss is negated; the least if undefined.

    Args:
        row: validation scores, such as a row of the history.
        recipe: for best_by.
    """
    value = float(row[history_column(recipe.best_by)])
    if math.isnan(value):
        return -math.inf
    return value if higher_is_better(recipe.best_by) else -value


def history_column(metric: str) -> str:
    """The column of the history that holds a metric.

    Args:
        metric: as in the configuration.
    """
    return "val_loss" if metric in (LOSS, "log_loss") else f"val_{metric_key(metric)}"


def early_stop_reason(history: list[dict[str, Any]], recipe: Recipe) -> str:
    """Why training ends now, before its last epoch; empty if it goes on.

    Args:
        history: rows of history.HISTORY, one per epoch done.
        recipe: for epochs, patience, max_minutes and best_by.
    """
    if not history or len(history) >= recipe.epochs:
        return ""
    if recipe.patience is not None:
        scores = [selection_score(row, recipe) for row in history]
        waited = len(scores) - 1 - int(np.argmax(scores))
        if waited >= recipe.patience:
            return f"no better epoch in the last {waited} (patience {recipe.patience})"
    return _passed(history, recipe.max_minutes, "max_minutes")


def out_of_time(minutes: float, history: list[dict[str, Any]]) -> str:
    """Why training ends now, as another epoch would take longer than the run's plan allows; empty if it goes on.

    Args:
        minutes: the member's share of runtime.max_hours.
        history: rows of history.HISTORY, one per epoch done.
    """
    return _passed(history, minutes, "the member's share of runtime.max_hours,")


def _passed(history: list[dict[str, Any]], limit: float | None, called: str) -> str:
    """Say that another epoch would probably take longer than some minutes in all, if it would."""
    minutes = sum(row["seconds"] for row in history) / 60
    if limit is None or minutes * (1 + 1 / len(history)) <= limit:
        return ""
    return f"{minutes:.1f} minutes are spent and another epoch would pass {called} {limit:g}"
