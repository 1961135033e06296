"""What a member is made of, and what changes while it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foldvote.config.recipe import Recipe, division_faults, parts_of
from foldvote.errors import UserError, raise_all
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.checkpoint import load_checkpoint
from foldvote.training.dataloader import AugmentedImages, EpochOrder, balanced_probabilities
from foldvote.training.optimizer import make_optimizer
from foldvote.training.training_set import TrainingSet
from foldvote.training.weight_averaging import State, clone_state


@dataclass(frozen=True)
class MemberSpec:
    """What one member is made of.

    Attributes:
        draws: seed, model name and fold.
        recipe: how it is trained.
        lessons: what it learns from and is scored on.
        weights: pretrained weights, or None.
        bands: borders of the bands of a factor with a number behind it, by the factor's name.
        fingerprint: digests of all of the above; a checkpoint with another one is not used.
        title: what a person calls it, where not by model and fold.
    """

    draws: MemberSeeds
    recipe: Recipe
    lessons: TrainingSet
    weights: Path | None
    bands: Mapping[str, Sequence[float]]
    fingerprint: dict[str, Any]
    title: str | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.title or f"{self.draws.model} fold {self.draws.fold}"

    @cached_property
    def order(self) -> EpochOrder:
        """Which images each epoch holds."""
        sampler, rows = self.recipe.sampler, self.lessons.training
        kinds = None if sampler is None else rows["label" if sampler.by == "class" else "stratum"].tolist()
        chances = None if sampler is None or kinds is None else balanced_probabilities(kinds, sampler.power)
        return EpochOrder(self.draws, len(rows), self.recipe.batch_size, chances)

    @cached_property
    def images(self) -> AugmentedImages:
        """The training images, augmented."""
        lessons, rows = self.lessons, self.lessons.training
        ids, places = rows["image_id"].tolist(), rows["row"].to_numpy(np.int64)
        return AugmentedImages(lessons.source, places, ids, lessons.targets, self.recipe.augment, self.draws)


@dataclass
class Progress:
    """How far a run is: the plain part of its state.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch that follows.
        loss_sum: sum of their losses.
        seconds: time spent on them.
        parts: parts that a batch goes through the net in, those of all processes together.
        averaged: how many weights are in the average.
        history: rows of history.HISTORY.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    parts: int = 1
    averaged: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class TrainState:
    """Everything that changes while a member trains, and so everything that a checkpoint holds.

    Attributes:
        model: on the device.
        optimizer: of its parameters.
        scaler: of its gradients.
        progress: the plain part.
        average: averaged weights, on the device; empty without `ema` or `swa`.
        kept: {"epoch", "quality", "state"} of the best epochs, the best first; of equals the earliest.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    average: State
    kept: list[dict[str, Any]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Plain types and tensors only."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")}
        return parts | {"progress": asdict(self.progress), "average": self.average, "kept": self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Become what was saved."""
        for name in ("model", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        for name, tensor in self.average.items():
            tensor.copy_(state["average"][name])
        self.progress, self.kept = Progress(**state["progress"]), state["kept"]


def start_or_resume(member: MemberSpec, compute: Device, folder: Path) -> TrainState:
    """A fresh run, or the one that the newest good checkpoint of this very member holds.

    Raises:
        UserError: if a batch cannot be divided among the processes of a team, or they cannot do as the recipe says.
    """
    recipe, key, team = member.recipe, member.draws.key("init"), compute.team
    if recipe.sync_bn and team.size > 1 and compute.device.type == "cpu":
        raise UserError("sync_bn: torch has it on GPUs only; drop it, or set runtime.cpu_processes: 1")
    model = compute.place(build_model(recipe, member.lessons.scheme, key, member.weights, member.bands))
    averages = recipe.ema is not None or recipe.swa is not None
    average = clone_state(model.state_dict()) if averages else {}
    run = TrainState(model, make_optimizer(recipe, model), compute.scaler(), Progress(parts=recipe.accumulate), average)
    saved = load_checkpoint(folder, member.fingerprint, log)
    if saved is not None:
        run.restore(saved)
        log(f"{member.name}: goes on at epoch {run.progress.epoch + 1}, step {run.progress.step + 1}")
    done = run.progress.epoch * member.order.steps + run.progress.step
    if team.most(done) != -team.most(-done):
        raise UserError(f"{folder}: not all processes could read the same checkpoint; run the same command again")
    # A checkpoint may be of a team of another size.
    run.progress.parts = parts_of(run.progress.parts, team.size)
    raise_all(f"{member.name}: {fault}" for fault in division_faults(member.order.size, run.progress.parts, team.size))
    return run
