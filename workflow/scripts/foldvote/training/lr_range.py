"""The learning-rate range test: the loss while the learning rate grows from step to step (Smith, WACV 2017)."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from foldvote.runtime.device import Device
from foldvote.training.dataloader import ResumableSampler, end_workers, training_loader
from foldvote.training.device_augmentation import augmented
from foldvote.training.optimizer import set_learning_rate
from foldvote.training.phases import freeze_backbone
from foldvote.training.state import MemberSpec, new_state
from foldvote.training.step import TrainStep
from foldvote.training.targets import class_counts

STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0  # learning rates
_MEMORY = 0.9  # share of the running mean that stays with each step
_DIVERGED = 4.0  # times the lowest smoothed loss
_FIRST = 10  # steps that decide nothing


class SuggestedRates(NamedTuple):
    """Learning rates that a range test suggests.

    Attributes:
        peak: a tenth of the rate of the lowest loss, a peak for a schedule with warm-up.
        steepest: the rate at which the loss falls fastest.
    """

    peak: float
    steepest: float


def measure_lr_range(spec: MemberSpec, device: Device, workers: int, steps: int = STEPS) -> pd.DataFrame:
    """Take optimizer steps with rates from 1e-7 to 10, each larger than the one before by the same factor.

    The network, the batches and the loss are those with which the member's training begins: with `freeze_epochs` only
    the head learns. No weights are kept. It ends early where the loss diverges.

    Args:
        spec: the member.
        device: where and how it trains, in one process.
        workers: loader processes; their number does not change the result.
        steps: number of steps.

    Returns:
        One row per step: `step` from 1, `lr`, `loss` of the batch, and `smoothed`, its running mean.

    Raises:
        UserError: if the network cannot be made, or does not fit on the device.
    """
    state, recipe, chosen = new_state(spec, device), spec.recipe, spec.training_set
    counts = class_counts(chosen.targets, len(chosen.label_space.classes), chosen.weights)
    take_step = TrainStep(
        recipe, spec.seeds, state, counts, device, chosen.weights is not None, label_space=chosen.label_space
    )
    freeze_backbone(state.model, head_only=recipe.freeze_epochs > 0)
    sampler = ResumableSampler(spec.order, math.ceil(steps / spec.order.steps), (0, 0))
    loading = iter(training_loader(spec.augmented_images, sampler, workers, device.torch_device.type == "cuda"))
    rows: list[dict[str, float]] = []
    mean, lowest, parts = 0.0, math.inf, state.progress.parts
    try:
        batches = augmented(loading, device.torch_device)
        for number, (images, targets) in zip(range(steps), batches, strict=False):
            lr = LOWEST * (HIGHEST / LOWEST) ** (number / (steps - 1))
            set_learning_rate(state.optimizer, lr)
            loss, parts = take_step.fit_in_memory(images, targets, number, parts)
            if not math.isfinite(loss.item()):
                break
            mean = _MEMORY * mean + (1 - _MEMORY) * loss.item()
            smoothed = mean / (1 - _MEMORY ** (number + 1))
            rows.append({"step": number + 1, "lr": lr, "loss": loss.item(), "smoothed": smoothed})
            lowest = min(lowest, smoothed)
            if number >= _FIRST and smoothed > _DIVERGED * lowest:
                break
    finally:
        end_workers(loading)
    return pd.DataFrame(rows, columns=["step", "lr", "loss", "smoothed"])


def suggested_rates(table: pd.DataFrame) -> SuggestedRates | None:
    """What a range test suggests; None where the loss did not fall.

    Args:
        table: rows of `measure_lr_range`.
    """
    smoothed = table["smoothed"].to_numpy()[_FIRST:]
    rates = table["lr"].to_numpy()[_FIRST:]
    if len(rates) < _FIRST or smoothed.argmin() == 0:
        return None
    slopes = np.gradient(smoothed, np.log(rates))[: smoothed.argmin() + 1]
    return SuggestedRates(float(rates[smoothed.argmin()] / 10), float(rates[slopes.argmin()]))
