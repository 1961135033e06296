"""Loss, optimizer and learning rate of a recipe."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from foldvote.sections import Recipe


def make_loss(recipe: Recipe) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The training loss of (logits, labels): cross-entropy with label smoothing (Szegedy et al., CVPR 2016)."""
    return partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, ICLR 2019); biases and normalisation weights do not decay."""
    return create_optimizer_v2(model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)


def make_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> CosineLRScheduler:
    """Linear warm-up, then half a cosine to a hundredth of the peak (Loshchilov & Hutter, ICLR 2017).

    It is a function of the step number alone (`step_update`), so that a resume needs no state of it.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps_per_epoch,
        lr_min=recipe.lr / 100,
        warmup_t=round(min(recipe.warmup_epochs, recipe.epochs / 2) * steps_per_epoch),
        warmup_lr_init=recipe.lr / 100,
        t_in_epochs=False,
    )
