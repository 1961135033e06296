"""What a member is made of, and what changes while it trains."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foldvote.config.batch_parts import division_faults, fitting_parts, parts_of
from foldvote.config.image_size import parse_size
from foldvote.config.losses import Consistency
from foldvote.config.metric_names import LOSS
from foldvote.config.named_weights import pinned_digest
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError, first_line, raise_all
from foldvote.evaluation.metric_registry import Metric, find_metrics
from foldvote.io.files import canonical, sha256_file
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.memory import is_out_of_memory
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.checkpoint import load_checkpoint, remembered_parts
from foldvote.training.dataloader import AugmentedImages, EpochOrder, balanced_probabilities
from foldvote.training.optimizer import make_optimizer
from foldvote.training.training_set import MemberInputs, TrainingSet, build_training_set
from foldvote.training.weight_averaging import State, clone_state


@dataclass(frozen=True)
class MemberSpec:
    """What one member is made of.

    Attributes:
        seeds: seed, model name and fold.
        recipe: how it is trained.
        inputs: the files it is made from.
        training_set: what it learns from and is scored on.
        origin: digests of the inputs, as they are written beside the weights.
        code: digest of the training code.
        title: the name in messages, where it is not the model and fold.
        scored_by: names of metrics that epochs are scored by, beside those of every history and the recipe's best_by.
    """

    seeds: MemberSeeds
    recipe: Recipe
    inputs: MemberInputs
    training_set: TrainingSet
    origin: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    title: str | None = None
    scored_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.title or f"{self.seeds.model} fold {self.seeds.fold}"

    @property
    def validates(self) -> bool:
        """Whether epochs are scored; a member that learns from all groups has no images to be scored on."""
        return len(self.training_set.validation) > 0

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that the result depends on; a checkpoint with another fingerprint is not used."""
        recipe = {f"recipe.{key}": canonical(value) for key, value in self.recipe.model_dump(mode="json").items()}
        return self.origin | {"code": self.code} | recipe

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """What epochs are scored by, beside the scores of every history."""
        names = [name for name in (self.recipe.best_by, *self.scored_by) if name != LOSS]
        return find_metrics(names, self.inputs.metric)

    @cached_property
    def order(self) -> EpochOrder:
        """Which images each epoch holds, in which batches."""
        sampler, rows = self.recipe.sampler, self.training_set.training
        weights = self.training_set.weights
        kinds = None if sampler is None else rows["label" if sampler.by == "class" else "stratum"].tolist()
        chances = None if sampler is None or kinds is None else balanced_probabilities(kinds, sampler.power, weights)
        shots = self.recipe.group_shots
        groups = rows["group"].to_numpy(np.int64) if shots else None
        return EpochOrder(self.seeds, len(rows), self.recipe.batch_size, chances, groups, shots or 1)

    @cached_property
    def augmented_images(self) -> AugmentedImages:
        """The training images, augmented, with their targets."""
        chosen, rows = self.training_set, self.training_set.training
        ids, places = rows["image_id"].tolist(), rows["row"].to_numpy(np.int64)
        augment, on_device = self.recipe.augment, self.recipe.augment_on == "device"
        size, targets = parse_size(self.recipe.size), chosen.batch_targets(self.recipe.tells_groups)
        metadata = chosen.metadata
        return AugmentedImages(chosen.source, places, ids, targets, augment, self.seeds, size, on_device, metadata)


def build_spec(seeds: MemberSeeds, recipe: Recipe, code: str, inputs: MemberInputs) -> MemberSpec:
    """Read a member's inputs and check that they belong together.

    Args:
        seeds: seed, model name and fold.
        recipe: how it is trained.
        code: digest of the training code.
        inputs: the files it is made from.

    Raises:
        UserError: if the inputs do not belong together, there are fewer than two training images, or the recipe needs
            validation images where there are none.
    """
    training_set = build_training_set(recipe, seeds.fold, inputs)
    origin = {
        "model": seeds.model,
        "fold": seeds.fold,
        "seed": seeds.seed,
        **training_set.origin,
        "age_borders": list(inputs.numeric.borders) if inputs.numeric else None,
        "pretrained_sha256": pinned_digest(inputs.pretrained, inputs.pretrained_sha256) if inputs.pretrained else None,
    }
    if inputs.metric is not None:
        origin["metric_sha256"] = sha256_file(inputs.metric)
    spec = MemberSpec(seeds, recipe, inputs, training_set, origin, code)
    if (images := len(training_set.training)) < 2:
        raise UserError(
            f"{spec.name}: has {images} training image{'' if images == 1 else 's'}, and needs two or more; add some or "
            "change folds"
        )
    of_classes = any(isinstance(term, Consistency) and term.factors is None for term in recipe.loss)
    if of_classes and training_set.training.groupby("group")["label"].nunique().max() > 1:
        raise UserError(
            f"{spec.name}: loss.consistency: images of one group have several classes; name the factors that belong to "
            "a group, such as factors: [gender, age], or drop it"
        )
    if recipe.chooses_epochs and not spec.validates:
        raise UserError(
            f"{spec.name}: learns from all groups, and its recipe decides by validation scores; set epoch: last, no "
            "patience and another schedule than plateau"
        )
    return spec


@dataclass
class Progress:
    """How far a run is: the part of its state that is plain numbers.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch that follows.
        loss_sum: sum of the finite losses of these steps.
        losses: number of these losses.
        seconds: time spent on these steps.
        waited: seconds of all steps so far that were spent waiting for their images.
        parts: number of parts in which a batch goes through the network, over all processes.
        averaged: number of weights in the average.
        reproducible: whether all steps were taken with deterministic kernels.
        compiled: the mode of torch.compile in which the net took the last step; None: it was not compiled.
        history: rows of history.HISTORY.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    losses: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    parts: int = 1
    averaged: int = 0
    reproducible: bool = True
    compiled: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        """Note that the images of a step were waited for."""
        self.waited += seconds

    def steps_done(self, steps_per_epoch: int) -> int:
        """Number of optimizer steps since the start of the run."""
        return self.epoch * steps_per_epoch + self.step


@dataclass
class TrainState:
    """Everything that changes while a member trains, and so everything that a checkpoint holds.

    Attributes:
        model: on the device.
        optimizer: of its parameters.
        scaler: of its gradients.
        progress: how far the run is.
        average: averaged weights, on the device; empty without `ema` or `swa`.
        best_epochs: with `epoch: best`, the best epochs so far, the best first, the earlier first of equals. Of each
            {"epoch", "score", "scores", "state"}: its number from 1, what it is chosen by (higher is better), all
            validation scores, and the weights on the CPU.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    average: State = field(default_factory=dict)
    best_epochs: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """The state as plain types and tensors. An average that has not begun is left out."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")}
        average = self.average if self.progress.averaged else {}
        return parts | {"progress": asdict(self.progress), "average": average, "best_epochs": self.best_epochs}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Load a saved state, in place."""
        for name in ("model", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(saved[name])
        for name, tensor in saved["average"].items():
            self.average[name].copy_(tensor)
        self.progress, self.best_epochs = Progress(**saved["progress"]), saved["best_epochs"]


def run_identity(spec: MemberSpec, device: Device) -> dict[str, Any]:
    """What makes a run this run: what the member is made of, and the type of its matrix products.

    `precision: auto` is another type on another device, and a gradient scaler's state exists in one of them alone.
    """
    return spec.fingerprint | {"dtype": str(device.dtype).removeprefix("torch.")}


def start_or_resume(spec: MemberSpec, device: Device, resume_dir: Path) -> TrainState:
    """Start a run, or go on from the newest good checkpoint of this very member.

    Args:
        spec: the member.
        device: where and how it trains.
        resume_dir: the folder of its checkpoints.

    Raises:
        UserError: if a batch cannot be divided among the processes, or they cannot do as the recipe says; or if the
            network does not fit on the device.
    """
    try:
        return _start_or_resume(spec, device, resume_dir)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{spec.name}: {spec.recipe.net} does not fit on the device ({first_line(error)}); another process may use "
            "it, or choose a smaller net"
        ) from error


def new_state(spec: MemberSpec, device: Device) -> TrainState:
    """The state at the beginning of a run.

    Args:
        spec: the member.
        device: where and how it trains.

    Raises:
        UserError: if the network or its optimizer cannot be made.
    """
    recipe, inputs, label_space = spec.recipe, spec.inputs, spec.training_set.label_space
    metadata = spec.training_set.metadata
    encoding = metadata.encoding if metadata else None
    model = build_model(recipe, label_space, spec.seeds.key("init"), inputs.pretrained, inputs.bands, encoding)
    if recipe.progressive is not None and getattr(model, "pretrained_cfg", {}).get("fixed_input_size"):
        raise UserError(f"{spec.name}: {recipe.net} takes images of one size only; drop the recipe's progressive")
    model = device.place(model)
    averages = recipe.ema is not None or recipe.swa is not None
    average = clone_state(model.state_dict()) if averages else {}
    optimizer = make_optimizer(recipe, model, fused=not device.reproducible)
    parts = fitting_parts(recipe.accumulate, spec.order.size)
    return TrainState(model, optimizer, device.scaler(), Progress(parts=parts), average)


def _start_or_resume(spec: MemberSpec, device: Device, resume_dir: Path) -> TrainState:
    recipe, group = spec.recipe, device.group
    if recipe.sync_bn and group.size > 1 and device.torch_device.type == "cpu":
        raise UserError("sync_bn: torch has it on GPUs only; drop it, or set runtime.cpu_processes: 1")
    state, identity = new_state(spec, device), run_identity(spec, device)
    saved = load_checkpoint(resume_dir, identity, log)
    if saved is not None:
        state.load_state_dict(saved)
        log(f"{spec.name}: goes on at epoch {state.progress.epoch + 1}, step {state.progress.step + 1}")
    progress = state.progress
    done = progress.steps_done(spec.order.steps)
    if group.max(done) != -group.max(-done):
        raise UserError(f"{resume_dir}: not all processes could read the same checkpoint; run the same command again")
    progress.reproducible &= device.reproducible
    # The checkpoint may have been written by another number of processes.
    progress.parts = parts_of(max(progress.parts, remembered_parts(resume_dir, identity)), group.size)
    faults = division_faults(spec.order.size, progress.parts, group.size, recipe.group_shots)
    raise_all(f"{spec.name}: {fault}" for fault in faults)
    return state
