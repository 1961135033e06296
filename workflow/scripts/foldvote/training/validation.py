"""The end of an epoch: what the validation images say of the weights."""

from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from foldvote.config.recipe import Recipe
from foldvote.data.packed_images import PackedImages
from foldvote.evaluation.metrics import accuracy, balanced_accuracy, log_loss, macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import IDENTITY
from foldvote.runtime.device import Device


def validate(
    model: nn.Module, pixels: PackedImages, rows: pd.DataFrame, classes: int, compute: Device, batch_size: int
) -> tuple[dict[str, float], np.ndarray]:
    """Scores of a net on the true labels of images it does not learn from, without any random change.

    Args:
        model: placed on the device.
        pixels: packed images.
        rows: rows of folds.FOLDS.
        classes: number of classes.
        compute: where and how; the processes of a team predict a share each.
        batch_size: images in one forward pass.

    Returns:
        val_loss (nats), val_macro_f1, val_accuracy and val_balanced_accuracy over all rows at once; and the predicted
        codes, shape (rows,).
    """
    labels = rows["label"].to_numpy(np.int64)
    places = pixels.rows(rows["image_id"].tolist())
    logits = compute.team.spread(
        lambda own: predict_logits(model, pixels, own, [IDENTITY], compute, batch_size)[IDENTITY.name], places
    )
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    scores = {
        "val_loss": log_loss(labels, probabilities),
        "val_macro_f1": macro_f1(labels, predicted, classes),
        "val_accuracy": accuracy(labels, predicted),
        "val_balanced_accuracy": balanced_accuracy(labels, predicted, classes),
    }
    return scores, predicted


def selection_score(row: dict[str, Any], recipe: Recipe) -> float:
    """The score of an epoch by which the recipe chooses: higher is better."""
    value = float(row[f"val_{recipe.best_by}"])
    return -value if recipe.best_by == "loss" else value


def early_stop_reason(history: list[dict[str, Any]], recipe: Recipe) -> str:
    """Why training ends before its last epoch, or nothing."""
    if not history or len(history) >= recipe.epochs:
        return ""
    qualities = [selection_score(row, recipe) for row in history]
    waited = len(qualities) - 1 - int(np.argmax(qualities))
    if recipe.patience is not None and waited >= recipe.patience:
        return f"no better epoch in the last {waited} (patience {recipe.patience})"
    minutes = sum(row["seconds"] for row in history) / 60
    if recipe.max_minutes is not None and minutes * (1 + 1 / len(history)) > recipe.max_minutes:
        return f"{minutes:.1f} minutes are spent and another epoch would pass max_minutes {recipe.max_minutes:g}"
    return ""
