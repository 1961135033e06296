"""The training of one member: one loop, from which every run can be stopped and gone on with to the byte.

What a step draws depends on its number and not on the steps before it, the learning rate on the step's number and the
history, and everything else that changes is in the checkpoint. So an interrupted run ends with the very weights of an
undisturbed one.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from foldvote.config.base import parse_size
from foldvote.config.runtime import Runtime
from foldvote.errors import Interrupted, UserError
from foldvote.io.files import write_json
from foldvote.models.factory import normalisation
from foldvote.runtime.device import Device
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from foldvote.runtime.job_log import log, track
from foldvote.runtime.signals import stop_on_signal
from foldvote.training.checkpoint import save_checkpoint
from foldvote.training.dataloader import ResumableSampler, training_loader
from foldvote.training.optimizer import learning_rate, set_learning_rate
from foldvote.training.state import MemberSpec, Progress, TrainState, start_or_resume
from foldvote.training.step import LESS_MEMORY, fit_in_memory, freeze_backbone, make_step
from foldvote.training.tracking import Sinks
from foldvote.training.training_set import class_counts
from foldvote.training.validation import early_stop_reason, selection_score, validate
from foldvote.training.weight_averaging import (
    State,
    clone_state,
    ema_weight,
    lerp_,
    model_soup,
    recompute_batchnorm,
    swa_starts,
    with_weights,
)

LOOK_EVERY = 20  # steps
MOST_BAD = 10  # losses in a row that are not finite, where a gradient scaler skips such steps


@dataclass
class LossMonitor:
    """Sum of an epoch's losses, and the steps whose loss was not finite.

    Attributes:
        total: sum of the finite losses looked at.
        mean: the means over all processes of some losses, a tensor on the device.
        bad: numbers of the last steps in a row whose loss was not finite.
        begun: whether any step was noted in this process.
    """

    total: float = 0.0
    mean: Callable[[torch.Tensor], torch.Tensor] = SINGLE_PROCESS.mean
    bad: list[int] = field(default_factory=list)
    begun: bool = False
    _waiting: list[tuple[int, torch.Tensor]] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return len(self._waiting) >= LOOK_EVERY

    def add(self, number: int, loss: torch.Tensor) -> None:
        """Note the loss of a step, a scalar on the device."""
        self.begun = True
        self._waiting.append((number, loss))

    def look(self, skips: bool) -> bool:
        """Fetch the losses noted so far.

        Args:
            skips: whether steps that are not finite are skipped (fp16); else one such step spoils the weights.

        Returns:
            Whether training may go on.
        """
        if self._waiting:
            numbers, losses = zip(*self._waiting, strict=True)
            self._waiting.clear()
            for number, loss in zip(numbers, self.mean(torch.stack(losses)).tolist(), strict=True):
                if math.isfinite(loss):
                    self.total += loss
                    self.bad.clear()
                else:
                    self.bad.append(number)
        return len(self.bad) < (MOST_BAD if skips else 1)


_SHOWN = 24  # validation pictures shown to the sinks


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        chosen: weights that predict (state dict on the CPU).
        last: weights of the last epoch.
        epochs: the epochs, from 1, that the chosen weights are of.
        scores: their validation scores.
        history: rows of history.HISTORY.
        parts: parts that a batch went through the net in.
    """

    chosen: State
    last: State
    epochs: list[int]
    scores: dict[str, float]
    history: pd.DataFrame
    parts: int


def close_epoch(
    member: MemberSpec, run: TrainState, compute: Device, predict_batch: int, seconds: Callable[[], float], sinks: Sinks
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
        lerp_(run.average, run.model.state_dict(), 1 / progress.averaged)
    with _predicting_weights(member, run, compute):
        scores, predicted = _validated(member, run.model, compute, predict_batch)
        own = selection_score(scores, recipe)
        best = all(own > selection_score(row, recipe) for row in progress.history)
        if len(run.kept) < recipe.soup or own > run.kept[-1]["quality"]:
            state = clone_state(run.model.state_dict(), "cpu")
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
    member: MemberSpec, model: nn.Module, compute: Device, predict_batch: int
) -> tuple[dict[str, float], np.ndarray]:
    lessons, team = member.lessons, compute.team
    team.align(model)
    scores, predicted = validate(
        model, lessons.pixels, lessons.validation, len(lessons.scheme.classes), compute, predict_batch
    )
    return team.share(scores), predicted


@contextmanager
def _predicting_weights(member: MemberSpec, run: TrainState, compute: Device) -> Iterator[None]:
    """For the block the model holds the weights that would predict now: its own, or their average."""
    if not run.progress.averaged:
        yield
        return
    with with_weights(run.model, run.average):
        if member.recipe.swa is not None:
            recompute_batchnorm(run.model, _plain_batches(member, run.model, compute))
        yield


def _plain_batches(member: MemberSpec, model: nn.Module, compute: Device) -> Iterator[torch.Tensor]:
    """The training images in batches, without any random change."""
    mean, std = normalisation(model, compute.device)
    size, rows = member.recipe.batch_size, member.images.rows
    for start in range(0, len(rows) - len(rows) % size or len(rows), size):
        batch = np.stack([member.images.pixels[row] for row in rows[start : start + size]])
        yield compute.images(torch.from_numpy(batch), mean, std)


def finished(member: MemberSpec, run: TrainState, compute: Device, predict_batch: int) -> TrainResult:
    """The weights that predict, as the recipe says: of the best epoch, of several together, or of the last."""
    progress, recipe = run.progress, member.recipe
    history = pd.DataFrame(progress.history)
    with _predicting_weights(member, run, compute):
        last = clone_state(run.model.state_dict(), "cpu")
    if recipe.epoch == "last":
        scores = {name: history[name].iloc[-1] for name in history if name.startswith("val_")}
        return TrainResult(last, last, [progress.epoch], scores, history, progress.parts)
    epochs, best = [entry["epoch"] for entry in run.kept], run.kept[0]
    if len(epochs) == 1:
        return TrainResult(best["state"], last, epochs, best["scores"], history, progress.parts)
    with with_weights(run.model, model_soup([entry["state"] for entry in run.kept])):
        recompute_batchnorm(run.model, _plain_batches(member, run.model, compute))
        scores, _ = _validated(member, run.model, compute, predict_batch)
        return TrainResult(clone_state(run.model.state_dict(), "cpu"), last, epochs, scores, history, progress.parts)


def _tell(member: MemberSpec, row: dict[str, Any], predicted: np.ndarray, sinks: Sinks) -> None:
    log(
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


SAVE, STOP = 1, 2  # what can be asked of all processes after a step


def no_sinks(_epochs: int) -> Sinks:
    """Tell nobody."""
    return Sinks({}, log)


def never_enough(_history: list[dict[str, Any]]) -> str:
    """Train on."""
    return ""


def fit(
    member: MemberSpec,
    compute: Device,
    folder: Path,
    workers: int,
    runtime: Runtime,
    open_sinks: Callable[[int], Sinks] = no_sinks,
    also_enough: Callable[[list[dict[str, Any]]], str] = never_enough,
) -> TrainResult:
    """Train one member, from its last checkpoint where there is one.

    Args:
        member: what to train.
        compute: where and how.
        folder: its resume folder, which nobody else writes to.
        workers: loader processes; they do not change the result.
        runtime: batch size of predictions, and time between two checkpoints; each epoch's end saves as well.
        open_sinks: gives what is told of every epoch, as a function of the number of epochs done.
        also_enough: given the history after each epoch, says why training ends before its last one, or nothing.

    Raises:
        Interrupted: when a signal asked to stop; the state is saved.
        UserError: if the loss is not finite, the memory does not suffice, or a loader process dies.
    """
    recipe, order, team = member.recipe, member.order, compute.team
    run = start_or_resume(member, compute, folder)
    progress, watch, clock = run.progress, LossMonitor(run.progress.loss_sum, team.mean), Clock()
    counts = class_counts(member.lessons.targets, len(member.lessons.scheme.classes))
    step = make_step(recipe, member.draws, run.model, run.optimizer, run.scaler, counts, compute)
    over, sinks = bool(early_stop_reason(progress.history, recipe)), open_sinks(progress.epoch)
    if not (over or progress.epoch):
        sinks.graph(run.model, torch.zeros(1, 3, *parse_size(recipe.size)))
    with closing(sinks), stop_on_signal() as stopping, _told_faults(member, run):
        for batch, targets in () if over else _batches(member, progress, workers, compute):
            done = progress.epoch * order.steps + progress.step
            watch.add(done, _advance(member, run, partial(step, batch, targets, done), done, first=not watch.begun))
            progress.step += 1
            epoch_ends = progress.step == order.steps
            asked = team.most(_asked(stopping, clock.since_lap() > runtime.checkpoint_minutes * 60))
            saves = epoch_ends or asked > 0
            if (saves or watch.due) and not watch.look(skips=run.scaler.is_enabled()):
                raise UserError(_not_finite(member, watch, folder, team))
            if not saves:
                continue
            progress.loss_sum = watch.total
            if epoch_ends:
                close_epoch(member, run, compute, runtime.predict_batch, clock.lap, sinks)
                watch.total = 0.0
            else:
                progress.seconds += clock.lap()
            if team.first:
                save_checkpoint(folder, done + 1, run.state() | {"fingerprint": member.fingerprint})
            if asked == STOP:
                raise Interrupted(f"{member.name}: stopped as asked, state saved; the same command goes on from here")
            if epoch_ends and (reason := early_stop_reason(progress.history, recipe) or also_enough(progress.history)):
                log(f"{member.name}: ends after epoch {progress.epoch}: {reason}")
                break
    return finished(member, run, compute, runtime.predict_batch)


def _advance(
    member: MemberSpec, run: TrainState, take: Callable[[int], torch.Tensor], done: int, *, first: bool
) -> torch.Tensor:
    """Take one optimizer step and give its loss."""
    recipe, progress, steps = member.recipe, run.progress, member.order.steps
    set_learning_rate(
        run.optimizer, learning_rate(recipe, done, steps, [selection_score(row, recipe) for row in progress.history])
    )
    if first or progress.step == 0:
        freeze_backbone(run.model, head_only=progress.epoch < recipe.freeze_epochs)
    if first:
        loss, progress.parts = fit_in_memory(take, run.model, progress.parts, recipe.batch_size)
    else:
        loss = take(progress.parts)
    if recipe.ema is not None:
        lerp_(run.average, run.model.state_dict(), ema_weight(recipe.ema, progress.averaged))
        progress.averaged += 1
    return loss


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def since_lap(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start

    def lap(self) -> float:
        """Seconds so far, and start anew."""
        seconds = self.since_lap()
        self._start += seconds
        return seconds


def _asked(stopping: threading.Event, late: bool) -> int:
    """What this process asks of all: to stop, to save (`late`), or nothing."""
    return STOP if stopping.is_set() else SAVE if late else 0


def _batches(
    member: MemberSpec, progress: Progress, workers: int, compute: Device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What is left of the run's batches, with progress shown."""
    plan = ResumableSampler(member.order, member.recipe.epochs, (progress.epoch, progress.step), compute.team)
    loader = training_loader(member.images, plan, workers, pin=compute.device.type == "cuda")
    left = (member.recipe.epochs - progress.epoch) * member.order.steps - progress.step
    return track(loader, f"{member.name}: training steps", left)


@contextmanager
def _told_faults(member: MemberSpec, run: TrainState) -> Iterator[None]:
    """What befalls the machine in the middle of a run, in words."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        place = f"{member.name}: epoch {run.progress.epoch + 1}, step {run.progress.step + 1}"
        raise UserError(f"{place}: out of memory; another process may use the device; {LESS_MEMORY}") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"{member.name}: a process that loads images died ({str(error).splitlines()[0]}); memory is the usual "
            "reason: lower runtime.workers; the same command goes on from the last checkpoint"
        ) from error


def _not_finite(member: MemberSpec, watch: LossMonitor, folder: Path, team: ProcessGroup) -> str:
    """Leave the ids of the batches whose loss was not finite beside the checkpoint, and say so."""
    steps, ids = member.order.steps, member.images.image_ids
    batches = [
        {
            "epoch": number // steps + 1,
            "step": number % steps + 1,
            "image_ids": [ids[place] for place in member.order.batches(number // steps)[number % steps]],
        }
        for number in watch.bad
    ]
    if team.first:
        write_json(folder / "not-finite.json", batches)
    first = batches[0]
    return (
        f"{member.name}: the loss is no longer finite from epoch {first['epoch']}, step {first['step']} on; lower "
        f"models.*.lr, or set clip_norm or precision: fp32. The last good checkpoint is kept; the images of those "
        f"steps are in {folder / 'not-finite.json'}"
    )
