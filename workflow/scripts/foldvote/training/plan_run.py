"""The plan of a run with `runtime.max_hours`: each model is measured, and what fits is written before training."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldvote.config.recipe import Recipe
from foldvote.config.run_plan import KEPT_BACK, ModelCost, PlannedModel, fitting_epochs, least_seconds, run_seconds
from foldvote.data.packed_images import open_packed_images
from foldvote.errors import UserError
from foldvote.io.files import write_json
from foldvote.runtime.job_log import log
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import read_folds
from foldvote.splits.reserve import reserve_rows
from foldvote.training.speed import Speed, measure_speed
from foldvote.training.state import MemberSpec
from foldvote.training.training_set import MemberInputs

JOB_SECONDS = 1.0  # to start a job, beside the imports
PROBE_SECONDS = 20.0  # to fit a probe on its features; these are made once for all folds, as fast as predictions
EPOCH_SECONDS = 0.1  # at the end of an epoch, beside validation: scores, trackers, now and then a checkpoint
VOTE_SECONDS = 30.0  # from the last prediction to the end of the run
VOTE_SECONDS_PER_PREDICTION = 4e-6  # of an image by a member: a table in docs/scale.md


@dataclass(frozen=True)
class Wanted:
    """A model as the user wants it.

    Attributes:
        recipe: how its members are trained.
        inputs: the packed training images, and the split.
        test: packed test images of its size; None: there are none.
        needs: models without which it cannot be in the vote.
        teaches: whether its members predict what they learn from, for a student.
    """

    recipe: Recipe
    inputs: MemberInputs
    test: Path | None
    needs: tuple[str, ...]
    teaches: bool


@dataclass(frozen=True)
class Limits:
    """The time, and how it is used.

    Attributes:
        hours: `runtime.max_hours`.
        spent_seconds: what the run has taken so far.
        least_epochs: `runtime.least_epochs`.
        at_once: number of members that are trained side by side.
        import_seconds: what a job takes to import what it needs.
    """

    hours: float
    spent_seconds: float
    least_epochs: float
    at_once: int
    import_seconds: float


def write_plan(
    wanted: Mapping[str, Wanted],
    seed: int,
    folds: int,
    views: Sequence[str | Mapping[str, Any]],
    limits: Limits,
    made_for: str,
    path: Path,
    resources: JobResources,
) -> None:
    """Measure every model, decide what fits, say it, and write it.

    Args:
        wanted: by model, the most important one first.
        seed: the run's seed.
        folds: number of members of each model.
        views: the test-time views of the configuration.
        limits: the time, and how it is used.
        made_for: the digest by which the plan is known to belong to a configuration.
        path: the JSON to write.
        resources: those of a training.

    Raises:
        UserError: if not even the first model fits, with the hours that it needs.
    """
    started, costs, speeds, predictions = time.monotonic(), dict[str, ModelCost](), dict[str, Speed](), 0
    for name, one in wanted.items():
        speed, spec = measure_speed(MemberSeeds(seed, name, 0), one.recipe, one.inputs, views, resources)
        images = _predicted_images(one, spec)
        costs[name] = _cost(one, spec, speed, images, folds, limits.import_seconds)
        speeds[name], predictions = speed, predictions + folds * sum(images)
        log(f"{name}: {spec.order.steps} steps of {speed.step_seconds * 1e3:.1f} ms in an epoch, on {speed.device}")
    ends = VOTE_SECONDS + predictions * VOTE_SECONDS_PER_PREDICTION
    taken = limits.spent_seconds + time.monotonic() - started + ends
    plan = _plan(costs, taken, limits)
    _tell(plan, costs, taken, limits)
    content = {
        "made_for": made_for,
        "max_hours": limits.hours,
        "planned_hours": round((taken + run_seconds(costs, _kept(plan), limits.at_once)) / 3600, 4),
        "members_at_once": limits.at_once,
        "models": {
            name: vars(plan[name])
            | {"member_seconds": round(costs[name].member_seconds(plan[name].epochs), 1)}
            | {"epoch_seconds": costs[name].epoch_seconds, "measured": speeds[name].as_json()}
            for name in wanted
        },
    }
    write_json(path, content)


def _predicted_images(one: Wanted, spec: MemberSpec) -> list[int]:
    """Number of images of each part that a member predicts."""
    chosen = spec.training_set
    folds, _ = read_folds(one.inputs.split.folds, one.inputs.split.certificate)
    images = [len(chosen.validation), len(reserve_rows(folds)), _test_images(one)]
    return list(filter(None, [*images, len(chosen.training) if one.teaches else 0]))


def _test_images(one: Wanted) -> int:
    return len(open_packed_images(one.test, one.recipe.packed, None).row_of) if one.test else 0


def _cost(
    one: Wanted, spec: MemberSpec, speed: Speed, images: Sequence[int], folds: int, import_seconds: float
) -> ModelCost:
    chosen, recipe = spec.training_set, one.recipe
    learnt, steps = len(chosen.training), float(spec.order.steps)
    if recipe.first_round:  # test images are learnt from as well
        steps *= 1 + _test_images(one) / learnt
    # Averaged weights see all training images once more in each epoch, for the statistics of batch normalisation.
    again = learnt if recipe.swa is not None else 0
    epoch = EPOCH_SECONDS + steps * speed.step_seconds + (len(chosen.validation) + again) * speed.image_seconds
    if recipe.kind == "probe":
        epoch = PROBE_SECONDS
    start = JOB_SECONDS + import_seconds + speed.start_seconds
    jobs = 2 + one.teaches  # training, predictions, and what it teaches
    other = jobs * start + sum(images) * speed.views_seconds
    return ModelCost(folds, recipe.epochs, epoch, other, one.needs, tuple(recipe.learns_from))


def _plan(costs: Mapping[str, ModelCost], taken: float, limits: Limits) -> dict[str, PlannedModel]:
    """What the time leaves of each model; `taken` are the seconds before training and after the last prediction."""
    whole, usable = limits.hours * 3600, limits.hours * 3600 * (1 - KEPT_BACK) - taken
    epochs = fitting_epochs(costs, usable, limits.least_epochs, limits.at_once)
    if not epochs:
        first, least = next(iter(costs)), least_seconds(costs, limits.least_epochs, limits.at_once)
        hours = math.ceil(100 * (least + taken) / (1 - KEPT_BACK) / 3600) / 100
        raise UserError(
            f"runtime.max_hours: {limits.hours:g} is too little: {first} alone, with {costs[first].members} members of "
            f"{costs[first].least(limits.least_epochs)} of {costs[first].epochs} epochs, takes {_told(least)}, and "
            f"everything else {_told(taken)}; set {hours:g} or more, or another first model"
        )
    slack = (whole - taken) / run_seconds(costs, epochs, limits.at_once)
    return {
        name: PlannedModel(
            epochs.get(name, 0), one.epochs, round(slack * epochs.get(name, 0) * one.epoch_seconds / 60, 3)
        )
        for name, one in costs.items()
    }


def _kept(plan: Mapping[str, PlannedModel]) -> dict[str, int]:
    """By model that is trained the epochs."""
    return {name: one.epochs for name, one in plan.items() if one.epochs}


def _tell(plan: Mapping[str, PlannedModel], costs: Mapping[str, ModelCost], taken: float, limits: Limits) -> None:
    """Say what fits and what is cut."""
    for name, one in plan.items():
        cost = costs[name]
        seconds = cost.members * cost.member_seconds(one.epochs or cost.epochs)
        what = f"{one.in_words}, {cost.members} members" if one.epochs else "left out; all of it"
        log(f"plan: {name}: {what}, {_told(seconds)}")
    seconds = taken + run_seconds(costs, _kept(plan), limits.at_once)
    log(f"plan: {_told(seconds)} of {_told(limits.hours * 3600)}, of which {_told(limits.spent_seconds)} are spent")


def _told(seconds: float) -> str:
    """Such as `42 min`."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
