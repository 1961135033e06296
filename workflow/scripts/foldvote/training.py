"""One member: a network trained on all folds but one; stopped anywhere, it goes on as if it had not been."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from foldvote.batches import Draws, Plan, TrainingImages, batches_of_epoch, training_loader
from foldvote.checkpoint import load_checkpoint, save_checkpoint
from foldvote.compute import Compute
from foldvote.console import say, track
from foldvote.errors import Interrupted, Refusal
from foldvote.inference import predict_logits
from foldvote.metrics import accuracy, log_loss, macro_f1
from foldvote.models import build_model, normalisation
from foldvote.optimization import make_loss, make_optimizer, make_schedule
from foldvote.pixels import Pixels
from foldvote.sections import Recipe
from foldvote.vote import softmax


@dataclass(frozen=True)
class Member:
    """What one member is made of.

    Attributes:
        draws: seed, model name and fold.
        recipe: how it is trained.
        classes: number of logits.
        weights: pretrained weights, or None.
        pixels: packed training images.
        training: rows of tables.FOLDS to learn from.
        validation: rows of tables.FOLDS to be scored on.
        fingerprint: digests of all of the above; a checkpoint with another one is not used.
    """

    draws: Draws
    recipe: Recipe
    classes: int
    weights: Path | None
    pixels: Pixels
    training: pd.DataFrame
    validation: pd.DataFrame
    fingerprint: dict[str, Any]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.draws.model} fold {self.draws.fold}"


@dataclass
class Progress:
    """How far a run is: the plain part of its state."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Run:
    """Everything that changes while a member trains, and so everything that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    best: dict[str, torch.Tensor]

    def state(self) -> dict[str, Any]:
        """Plain types and tensors only."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")}
        return parts | {"progress": asdict(self.progress), "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        """Become what was saved."""
        for name in ("model", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.progress, self.best = Progress(**state["progress"]), state["best"]


@dataclass(frozen=True)
class Trained:
    """The weights (state dicts on the CPU) and the history (rows of tables.HISTORY) of a finished run."""

    best: dict[str, torch.Tensor]
    last: dict[str, torch.Tensor]
    history: pd.DataFrame


def fit(
    member: Member, compute: Compute, folder: Path, workers: int, predict_batch: int, save_seconds: float
) -> Trained:
    """Train one member, from its last checkpoint where there is one.

    Args:
        member: what to train.
        compute: where and how.
        folder: its resume folder, which nobody else writes to.
        workers: loader processes; they do not change the result.
        predict_batch: images in one validation batch.
        save_seconds: longest time between two checkpoints; each epoch's end saves as well.

    Returns:
        The best epoch's weights by validation macro-F1 (the earliest of equals), the last epoch's, and the history.

    Raises:
        Interrupted: when a signal asked to stop; the state is saved.
        Refusal: if the loss is not finite.
    """
    recipe, draws = member.recipe, member.draws
    images = _training_images(member)
    steps = len(batches_of_epoch(draws, 0, len(images), recipe.batch_size))
    run = _start_or_resume(member, compute, folder)
    schedule = make_schedule(recipe, run.optimizer, steps)
    progress = run.progress
    loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=compute.device)
    step_of = _stepper(member, run, compute)

    plan = Plan(draws, len(images), recipe.batch_size, recipe.epochs, (progress.epoch, progress.step))
    loader = training_loader(images, plan, workers, pin=compute.device.type == "cuda")
    left = recipe.epochs * steps - (progress.epoch * steps + progress.step)
    clock = Clock()
    with stop_on_signal() as stopping:
        for batch, labels in track(loader, f"{member.name}: training steps", left):
            done = progress.epoch * steps + progress.step
            schedule.step_update(done)
            loss_sum += step_of(batch, labels, draws.key("step", done))
            progress.step += 1
            epoch_ends = progress.step == steps
            if not (epoch_ends or stopping.is_set() or clock.since_lap() > save_seconds):
                continue
            progress.loss_sum = _finite(loss_sum.item(), member, progress)
            if epoch_ends:
                _close_epoch(member, run, compute, predict_batch, clock)
                loss_sum.zero_()
            else:
                progress.seconds += clock.lap()
            save_checkpoint(
                folder, progress.epoch * steps + progress.step, run.state() | {"fingerprint": member.fingerprint}
            )
            if stopping.is_set():
                raise Interrupted(f"{member.name}: stopped as asked, state saved; the same command goes on from here")
    return Trained(run.best, _on_cpu(run.model), pd.DataFrame(progress.history))


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


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM, SIGINT and SIGUSR1 set during the block, instead of ending the process."""
    stopping = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _training_images(member: Member) -> TrainingImages:
    ids = member.training["image_id"].tolist()
    labels = member.training["label"].to_numpy(np.int64)
    rows = member.pixels.rows(ids)
    return TrainingImages(member.pixels, rows, ids, labels, member.recipe.augment, member.draws)


def _start_or_resume(member: Member, compute: Compute, folder: Path) -> Run:
    model = compute.place(build_model(member.recipe, member.classes, member.draws.key("init"), member.weights))
    run = Run(model, make_optimizer(member.recipe, model), compute.scaler(), Progress(), _on_cpu(model))
    saved = load_checkpoint(folder, member.fingerprint, say)
    if saved is not None:
        run.restore(saved)
        say(f"{member.name}: goes on at epoch {run.progress.epoch + 1}, step {run.progress.step + 1}")
    return run


def _stepper(member: Member, run: Run, compute: Compute) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
    """One optimizer step as a function of (uint8 images, labels, seed of the step's draws), giving the loss."""
    model, optimizer, scaler, clip_norm = run.model, run.optimizer, run.scaler, member.recipe.clip_norm
    loss_of = make_loss(member.recipe)
    mean, std = normalisation(model, compute.device)

    def step(batch: torch.Tensor, labels: torch.Tensor, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model.train()
        with compute.autocast():
            logits = model(compute.images(batch, mean, std))
        loss = loss_of(logits.float(), labels.to(compute.device, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def _close_epoch(member: Member, run: Run, compute: Compute, predict_batch: int, clock: Clock) -> None:
    """Validate, add a row to the history, keep the weights if they are the best, and turn to the next epoch."""
    progress = run.progress
    rows = member.pixels.rows(member.validation["image_id"].tolist())
    labels = member.validation["label"].to_numpy(np.int64)
    logits = predict_logits(run.model, member.pixels, rows, ["identity"], compute, predict_batch)["identity"]
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    score = macro_f1(labels, predicted, member.classes)
    best = all(score > row["val_macro_f1"] for row in progress.history)
    if best:
        run.best = _on_cpu(run.model)
        progress.history = [row | {"best": False} for row in progress.history]
    row = {
        "epoch": progress.epoch + 1,
        "train_loss": progress.loss_sum / progress.step,
        "val_loss": log_loss(labels, probabilities),
        "val_macro_f1": score,
        "val_accuracy": accuracy(labels, predicted),
        "lr": run.optimizer.param_groups[0]["lr"],
        "seconds": progress.seconds + clock.lap(),
        "best": best,
    }
    progress.history.append(row)
    progress.epoch, progress.step, progress.loss_sum, progress.seconds = progress.epoch + 1, 0, 0.0, 0.0
    say(
        f"{member.name}  epoch {row['epoch']}/{member.recipe.epochs}  loss {row['train_loss']:.3f}  "
        f"validation: loss {row['val_loss']:.3f}  macro-F1 {score:.3f}  accuracy {row['val_accuracy']:.3f}  "
        f"{row['seconds']:.1f} s{'  (best so far)' if best else ''}"
    )


def _finite(loss_sum: float, member: Member, progress: Progress) -> float:
    if not np.isfinite(loss_sum):
        raise Refusal(
            f"{member.name}: the loss is no longer finite at epoch {progress.epoch + 1}, step {progress.step}; lower "
            "models.*.lr, or set clip_norm or precision: fp32. The last good checkpoint is kept"
        )
    return loss_sum


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
