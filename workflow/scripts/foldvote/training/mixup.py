"""Mixes of the images of a batch and of their targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foldvote.config.recipe import CutMix, HalfFace, Mix, Mixup


@dataclass(frozen=True)
class MixPlan:
    """What is done to one batch.

    Attributes:
        order: the partner of every image: int64 positions (batch,).
        kept: share of each image that stays.
        box: top, bottom, left and right of what is taken from the partner; None: both are averaged.
    """

    order: np.ndarray
    kept: float
    box: tuple[int, int, int, int] | None


def plan_mix(mixes: Sequence[Mix], batch: int, height: int, width: int, seed: int) -> MixPlan | None:
    """Draw how a batch is mixed, or that it is not.

    Args:
        mixes: the recipe's `mix`; each is chosen with its chance `p`.
        batch: images of the batch.
        height: of each, in pixels.
        width: of each, in pixels.
        seed: of all draws, which are numpy's and so the same on every device.
    """
    draw = np.random.Generator(np.random.Philox(seed))
    chosen = _chosen(mixes, draw.random())
    if chosen is None:
        return None
    order = draw.permutation(batch)
    if isinstance(chosen, Mixup):
        return MixPlan(order, draw.beta(chosen.alpha, chosen.alpha), None)
    box = (0, height, width // 2, width) if isinstance(chosen, HalfFace) else _rectangle(chosen, height, width, draw)
    top, bottom, left, right = box
    return MixPlan(order, 1 - (bottom - top) * (right - left) / (height * width), box)


def apply_mix(drawn: MixPlan, own: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """Images (batch, 3, height, width) mixed with their partners, image by image; nothing is written to."""
    if drawn.box is None:
        return torch.lerp(partners, own, drawn.kept)
    top, bottom, left, right = drawn.box
    images = own.clone()
    images[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
    return images


def mix_batch(
    mixes: Sequence[Mix], images: torch.Tensor, targets: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a whole batch in one of several ways, or not at all.

    Args:
        mixes: as for `plan_mix`, and so `seed`.
        images: float (batch, 3, height, width), on any device; not written to.
        targets: float (batch, classes), rows that sum to 1; not written to.
        seed: of all draws.

    Returns:
        Images and targets of the same kind; the very inputs where no mix is chosen.
    """
    drawn = plan_mix(mixes, len(images), *images.shape[-2:], seed)
    if drawn is None:
        return images, targets
    order = torch.from_numpy(drawn.order).to(images.device)
    return apply_mix(drawn, images, images[order]), torch.lerp(targets[order], targets, drawn.kept)


def _chosen(mixes: Sequence[Mix], drawn: float) -> Mix | None:
    for mix in mixes:
        if drawn < mix.p:
            return mix
        drawn -= mix.p
    return None


def _rectangle(mix: CutMix, height: int, width: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a rectangle around a drawn centre, cut to the image."""
    side = float(np.sqrt(1 - draw.beta(mix.alpha, mix.alpha)))
    middle_y, middle_x = draw.integers(height), draw.integers(width)
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    return (
        int(max(middle_y - half_y, 0)),
        int(min(middle_y + half_y, height)),
        int(max(middle_x - half_x, 0)),
        int(min(middle_x + half_x, width)),
    )
