"""How fast a model trains and predicts on this machine, measured on a few batches of its own images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from foldvote.config.recipe import Recipe
from foldvote.config.treatment import Treatment
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import IDENTITY, View, plain_view, views_of
from foldvote.runtime.device import Device, name_nondeterminism
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.dataloader import ResumableSampler, end_workers, training_loader
from foldvote.training.device_augmentation import augmented
from foldvote.training.loop import Trainer
from foldvote.training.state import MemberSpec, build_spec
from foldvote.training.training_set import MemberInputs

WARM_STEPS = 3  # not counted: kernels are chosen, code is compiled, the optimizer's states appear
LEAST_STEPS = 4
MOST_STEPS = 200
MOST_SECONDS = 5.0  # of steps, unless LEAST_STEPS take longer
PREDICTED_SECONDS = 1.0


@dataclass(frozen=True)
class Speed:
    """What a model takes on this machine.

    Attributes:
        start_seconds: to make the network, and what the first steps take beyond the others.
        step_seconds: of an optimizer step, with loading and augmentation.
        image_seconds: to predict an image without test-time augmentation, as validation does.
        views_seconds: to predict an image under all views.
        device: name of the hardware.
    """

    start_seconds: float
    step_seconds: float
    image_seconds: float
    views_seconds: float
    device: str

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@name_nondeterminism()
def measure_speed(
    seeds: MemberSeeds,
    recipe: Recipe,
    inputs: MemberInputs,
    views: Sequence[str | Mapping[str, Any]],
    resources: JobResources,
) -> tuple[Speed, MemberSpec]:
    """Train a member for some steps and let it predict some images; nothing of it is kept.

    Weights to start from, and what other models teach, change no time and are left out. Of several processes that train
    a member together, this one takes its share of each batch; what they tell each other is not measured.

    Args:
        seeds: seed, model name and fold.
        recipe: as the model's members are trained.
        inputs: packed images and split.
        views: the test-time views of the configuration.
        resources: those of a training.

    Returns:
        The speed, and the member, whose batches are those of the recipe.
    """
    own = resources.per_process
    device, spec = own.device(recipe), build_spec(seeds, _alone(recipe), "", inputs)
    share = replace(spec, recipe=_of_one_process(spec.recipe, resources.processes))
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        workers = own.workers(device)
        trainer = Trainer(share, device, Path(folder), own.runtime, workers)
        made = time.monotonic() - started
        first, step = _step_seconds(trainer, device, workers)
    chosen, batch = spec.training_set, own.runtime.predict_batch
    ready = views_of(recipe, [dict(view) if isinstance(view, Mapping) else view for view in views])
    plain = _image_seconds(trainer, device, chosen.validation, [plain_view(recipe)], batch)
    alike = [view.name for view in ready] == [IDENTITY.name]
    viewed = plain if alike else _image_seconds(trainer, device, chosen.validation, ready, batch)
    return Speed(made + max(first - WARM_STEPS * step, 0), step, plain, viewed, device.name), spec


def _alone(recipe: Recipe) -> Recipe:
    """The recipe without what it takes from elsewhere; a backbone is frozen only if it is so throughout."""
    frozen = recipe.freeze_epochs if recipe.freeze_epochs == recipe.epochs else 0
    changes: dict[str, Any] = {
        "kind": "network",
        "compile": recipe.compile is True,  # a trial would take longer than all that is measured here
        "progressive": None,
        "pretrained": None,
        "labels": Treatment(),
        "pseudo": None,
        "metadata": None,
        "distill": None,
    }
    return recipe.definite.model_copy(update=changes | {"freeze_epochs": frozen, "epoch": "last", "best_by": "loss"})


def _of_one_process(recipe: Recipe, processes: int) -> Recipe:
    """The recipe with the share of a batch that one of several processes takes."""
    parts = -(-recipe.accumulate // processes)
    return recipe.model_copy(update={"batch_size": recipe.batch_size // processes, "accumulate": parts})


def _step_seconds(trainer: Trainer, device: Device, workers: int) -> tuple[float, float]:
    """Seconds of the first WARM_STEPS steps together, and of one step after them."""
    spec, progress = trainer.spec, trainer.state.progress
    sampler = ResumableSampler(spec.order, WARM_STEPS + MOST_STEPS, (0, 0), device.group)
    loading = iter(training_loader(spec.augmented_images, sampler, workers, device.torch_device.type == "cuda"))
    batches = iter(augmented(loading, device.torch_device))

    def take_steps(most: int) -> float:
        started, taken = time.monotonic(), 0
        for images, targets in islice(batches, most):
            loss = trainer.train_step(images, targets)
            progress.step %= spec.order.steps  # it stays within the first epoch
            taken += 1
            if taken >= LEAST_STEPS and time.monotonic() - started > MOST_SECONDS:
                break
        loss.item()  # waits for the device
        return (time.monotonic() - started) / taken

    try:
        return take_steps(WARM_STEPS) * WARM_STEPS, take_steps(MOST_STEPS)
    finally:
        end_workers(loading)


def _image_seconds(
    trainer: Trainer, device: Device, rows: pd.DataFrame, views: Sequence[View], batch_size: int
) -> float:
    """Seconds to predict an image under some views, after a first batch that is not counted."""
    images = trainer.spec.training_set.images
    batch = device.prediction_batch(batch_size, *images.shape[:2])
    places = images.rows(rows["image_id"].tolist())

    def batches_seconds(number: int) -> float:
        started = time.monotonic()
        predict_logits(trainer.state.model, images, np.resize(places, number * batch), views, device, batch_size)
        return time.monotonic() - started

    batches_seconds(1)
    number = min(max(round(PREDICTED_SECONDS / batches_seconds(1)), 2), MOST_STEPS)
    return batches_seconds(number) / (number * batch)
