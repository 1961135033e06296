"""Mixing the images and targets of a batch: mixup, cutmix and half faces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from foldvote.config.mixes import CutMix, HalfFace, Mix, Mixup


@dataclass(frozen=True)
class MixPlan:
    """How one batch is mixed.

    Attributes:
        order: position in the batch of each image's partner, int64 (batch,).
        kept: weight of each image's own target, in 0..1.
        box: top, bottom, left and right of the rectangle taken from the partner; None: both images are averaged with
            the weights `kept` and 1 - `kept`.
    """

    order: np.ndarray
    kept: float
    box: tuple[int, int, int, int] | None


def plan_mix(
    mixes: Sequence[Mix], batch: int, height: int, width: int, seed: int, groups: np.ndarray | None = None
) -> MixPlan | None:
    """Draw how a batch is mixed.

    Args:
        mixes: the recipe's `mix`; each is chosen with probability `p`.
        batch: number of images in the batch.
        height: height of the images in pixels.
        width: width of the images in pixels.
        seed: seed of all draws; numpy draws them, so they are the same on every device.
        groups: number of each image's group (batch,), for mixes with `partner: group`.

    Returns:
        The plan, or None if the batch is not mixed.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    chosen = _chosen(mixes, rng.random())
    if chosen is None:
        return None
    if chosen.partner == "group":
        assert groups is not None
        order = _within_groups(groups, rng)
    else:
        order = rng.permutation(batch)
    if isinstance(chosen, Mixup):
        return MixPlan(order, rng.beta(chosen.alpha, chosen.alpha), None)
    box = (0, height, width // 2, width) if isinstance(chosen, HalfFace) else _rectangle(chosen, height, width, rng)
    top, bottom, left, right = box
    return MixPlan(order, 1 - (bottom - top) * (right - left) / (height * width), box)


def apply_mix(plan: MixPlan, own: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """Mix each image with its partner; the inputs are not changed.

    Args:
        plan: how to mix.
        own: float images (batch, 3, height, width).
        partners: the partner of each image, of the same shape.

    Returns:
        The mixed images, of the same shape.
    """
    if plan.box is None:
        return torch.lerp(partners, own, plan.kept)
    top, bottom, left, right = plan.box
    images = own.clone()
    images[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
    return images


def mix_targets(plan: MixPlan, own: torch.Tensor, partners: torch.Tensor, grouped: bool) -> torch.Tensor:
    """Mix the targets of each image with those of its partner; the inputs are not changed.

    With weights, to which rows sum, each label of a mixed image keeps the weight of the image that it comes from.

    Args:
        plan: how to mix.
        own: float (batch, columns).
        partners: the rows of each image's partner, of the same shape.
        grouped: whether the last column is the number of the image's group, which is -1 for images of two groups.
    """
    mixed = torch.lerp(partners, own, plan.kept)
    if grouped:
        mixed[:, -1] = torch.where(own[:, -1] == partners[:, -1], own[:, -1], -1)
    return mixed


def mix_batch(
    mixes: Sequence[Mix], images: torch.Tensor, targets: torch.Tensor, seed: int, groups: np.ndarray | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a batch in one of several ways, or not at all.

    Args:
        mixes: the recipe's `mix`; each is chosen with probability `p`.
        images: float (batch, 3, height, width), on any device; not written to.
        targets: float (batch, columns); not written to.
        seed: seed of all draws.
        groups: the last column of the targets where that is the number of each image's group, in memory of the CPU.

    Returns:
        Images and targets of the same shapes; the inputs themselves if no mix is chosen.
    """
    plan = plan_mix(mixes, len(images), images.shape[-2], images.shape[-1], seed, groups)
    if plan is None:
        return images, targets
    order = torch.from_numpy(plan.order).to(images.device)
    return apply_mix(plan, images, images[order]), mix_targets(plan, targets, targets[order], groups is not None)


def groups_in(targets: torch.Tensor, told: bool) -> np.ndarray | None:
    """The groups of a batch, float (batch,), where its targets end with a column of them; otherwise None."""
    return targets[:, -1].cpu().numpy() if told else None


def _within_groups(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each image the place of another one of its group, or its own if there is none: a permutation, int64."""
    order = np.arange(len(groups))
    for group in np.unique(groups):
        places = rng.permutation(np.flatnonzero(groups == group))
        order[places] = np.roll(places, 1)
    return order


def _chosen(mixes: Sequence[Mix], drawn: float) -> Mix | None:
    """Choose a mix by a number drawn uniformly from 0..1; None if it is above the sum of all `p`."""
    for mix in mixes:
        if drawn < mix.p:
            return mix
        drawn -= mix.p
    return None


def _rectangle(mix: CutMix, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a rectangle around a random centre, clipped to the image."""
    side = float(np.sqrt(1 - rng.beta(mix.alpha, mix.alpha)))
    middle_y, middle_x = int(rng.integers(height)), int(rng.integers(width))
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    return (
        max(middle_y - half_y, 0),
        min(middle_y + half_y, height),
        max(middle_x - half_x, 0),
        min(middle_x + half_x, width),
    )


def as_probabilities(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Targets as float32 (batch, columns): codes become one-hot (batch, classes), rows of numbers stay as they are."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets
