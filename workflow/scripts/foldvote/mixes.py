"""Mixes of the images of a batch and of their targets."""

from collections.abc import Sequence

import numpy as np
import torch

from foldvote.recipes import CutMix, HalfFace, Mix, Mixup


def mix_batch(
    mixes: Sequence[Mix], images: torch.Tensor, targets: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a batch in one of several ways, or not at all.

    Args:
        mixes: the recipe's `mix`; each is chosen with its chance `p`.
        images: float (batch, 3, height, width), on any device; not written to.
        targets: float (batch, classes), rows that sum to 1; not written to.
        seed: of all draws, which are numpy's and so the same on every device.

    Returns:
        Images and targets of the same kind; the very inputs where no mix is chosen.
    """
    draw = np.random.Generator(np.random.Philox(seed))
    chosen = _chosen(mixes, draw.random())
    if chosen is None:
        return images, targets
    partner = torch.from_numpy(draw.permutation(len(images))).to(images.device)
    if isinstance(chosen, Mixup):
        share = draw.beta(chosen.alpha, chosen.alpha)
        return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)
    height, width = images.shape[-2:]
    if isinstance(chosen, HalfFace):
        top, bottom, left, right = 0, height, width // 2, width
    else:
        top, bottom, left, right = _rectangle(chosen, height, width, draw)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[partner][..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets[partner], targets, kept)


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
