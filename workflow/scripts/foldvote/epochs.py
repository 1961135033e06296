"""The end of an epoch and of a run: validation, history, the weights that are kept and those that predict."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from foldvote.averaging import State, blend, copied, settle_statistics, soup_of, swa_starts, weights_in
from foldvote.compute import Compute
from foldvote.console import say
from foldvote.models import normalisation
from foldvote.run import Member, Run
from foldvote.tracking import Sinks
from foldvote.validation import quality, validate

_SHOWN = 24  # validation pictures shown to the sinks


@dataclass(frozen=True)
class Trained:
    """What a finished run leaves.

    Attributes:
        chosen: weights that predict (state dict on the CPU).
        last: weights of the last epoch.
        epochs: the epochs, from 1, that the chosen weights are of.
        scores: their validation scores.
        history: rows of tables.HISTORY.
        parts: parts that a batch went through the net in.
    """

    chosen: State
    last: State
    epochs: list[int]
    scores: dict[str, float]
    history: pd.DataFrame
    parts: int


def close_epoch(
    member: Member, run: Run, compute: Compute, predict_batch: int, seconds: Callable[[], float], sinks: Sinks
) -> None:
    """Validate, add a row to the history, keep the weights if they are among the best, and turn to the next epoch.

    Args:
        member: what is trained.
        run: at the end of an epoch's steps; `progress.loss_sum` is set.
        compute: where and how.
        predict_batch: images in one validation batch.
        seconds: a function of no arguments, giving the time spent on the epoch, validation included.
        sinks: told of the epoch.
    """
    progress, recipe = run.progress, member.recipe
    if progress.epoch >= swa_starts(recipe):
        progress.averaged += 1
        blend(run.average, run.model.state_dict(), 1 / progress.averaged)
    with _predicting_weights(member, run, compute):
        scores, predicted = _validated(member, run.model, compute, predict_batch)
        own = quality(scores, recipe)
        best = all(own > quality(row, recipe) for row in progress.history)
        if len(run.kept) < recipe.soup or own > run.kept[-1]["quality"]:
            state = copied(run.model.state_dict(), "cpu")
            run.kept.append({"epoch": progress.epoch + 1, "quality": own, "scores": scores, "state": state})
            run.kept = sorted(run.kept, key=lambda entry: (-entry["quality"], entry["epoch"]))[: recipe.soup]
    row = {
        "epoch": progress.epoch + 1,
        "train_loss": progress.loss_sum / progress.step,
        **scores,
        "lr": max(group["lr"] for group in run.optimizer.param_groups),
        "seconds": compute.team.share(progress.seconds + seconds()),
        "best": best,
    }
    progress.history = [earlier | {"best": earlier["best"] and not best} for earlier in progress.history] + [row]
    progress.epoch, progress.step, progress.loss_sum, progress.seconds = progress.epoch + 1, 0, 0.0, 0.0
    if compute.team.first:
        _tell(member, row, predicted, sinks)


def _validated(
    member: Member, model: nn.Module, compute: Compute, predict_batch: int
) -> tuple[dict[str, float], np.ndarray]:
    lessons, team = member.lessons, compute.team
    team.align(model)
    scores, predicted = validate(
        model, lessons.pixels, lessons.validation, len(lessons.scheme.classes), compute, predict_batch
    )
    return team.share(scores), predicted


@contextmanager
def _predicting_weights(member: Member, run: Run, compute: Compute) -> Iterator[None]:
    """For the block the model holds the weights that would predict now: its own, or their average."""
    if not run.progress.averaged:
        yield
        return
    with weights_in(run.model, run.average):
        if member.recipe.swa is not None:
            settle_statistics(run.model, _plain_batches(member, run.model, compute))
        yield


def _plain_batches(member: Member, model: nn.Module, compute: Compute) -> Iterator[torch.Tensor]:
    """The training images in batches, without any random change."""
    mean, std = normalisation(model, compute.device)
    size, rows = member.recipe.batch_size, member.images.rows
    for start in range(0, len(rows) - len(rows) % size or len(rows), size):
        batch = np.stack([member.images.pixels[row] for row in rows[start : start + size]])
        yield compute.images(torch.from_numpy(batch), mean, std)


def finished(member: Member, run: Run, compute: Compute, predict_batch: int) -> Trained:
    """The weights that predict, as the recipe says: of the best epoch, of several together, or of the last."""
    progress, recipe = run.progress, member.recipe
    history = pd.DataFrame(progress.history)
    with _predicting_weights(member, run, compute):
        last = copied(run.model.state_dict(), "cpu")
    if recipe.epoch == "last":
        scores = {name: history[name].iloc[-1] for name in history if name.startswith("val_")}
        return Trained(last, last, [progress.epoch], scores, history, progress.parts)
    epochs, best = [entry["epoch"] for entry in run.kept], run.kept[0]
    if len(epochs) == 1:
        return Trained(best["state"], last, epochs, best["scores"], history, progress.parts)
    with weights_in(run.model, soup_of([entry["state"] for entry in run.kept])):
        settle_statistics(run.model, _plain_batches(member, run.model, compute))
        scores, _ = _validated(member, run.model, compute, predict_batch)
        return Trained(copied(run.model.state_dict(), "cpu"), last, epochs, scores, history, progress.parts)


def _tell(member: Member, row: dict[str, Any], predicted: np.ndarray, sinks: Sinks) -> None:
    say(
        f"{member.name}  epoch {row['epoch']}/{member.recipe.epochs}  loss {row['train_loss']:.3f}  "
        f"validation: loss {row['val_loss']:.3f}  macro-F1 {row['val_macro_f1']:.3f}  "
        f"accuracy {row['val_accuracy']:.3f}  {row['seconds']:.1f} s{'  (best so far)' if row['best'] else ''}"
    )
    sinks.scalars({key: value for key, value in row.items() if key not in ("epoch", "best")}, row["epoch"])
    shown = np.linspace(0, len(predicted) - 1, min(len(predicted), _SHOWN)).astype(int)
    pixels, validation = member.lessons.pixels, member.lessons.validation
    rows = pixels.rows(validation["image_id"].iloc[shown].tolist())
    names, truth = member.lessons.scheme.classes, validation["label"].to_numpy()
    captions = [
        names[truth[place]]
        if truth[place] == predicted[place]
        else f"{names[truth[place]]} -> {names[predicted[place]]}"
        for place in shown
    ]
    sinks.pictures(np.stack([pixels[place] for place in rows]), captions, row["epoch"])
