"""Optimizer and learning rate of a recipe.

The rate is a function of the step's number and of the history alone, so that a resumed run needs no scheduler's state.
"""

import math
from collections.abc import Sequence

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from foldvote.config.recipe import Constant, Cosine, OneCycle, Plateau, Polynomial, Recipe, Step
from foldvote.errors import UserError

_COLD = 0.01  # share of the peak that a warm-up starts from


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer, one of timm's; biases and normalisation weights do not decay.

    With `layer_decay` every layer's rate is scaled by its distance from the head (Clark et al., ICLR 2020).

    Raises:
        UserError: if the optimizer does not take the arguments, or the net does not tell its layers.
    """
    try:
        return create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
            **recipe.optimizer_args,
        )
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"optimizer {recipe.optimizer}: cannot be made for {recipe.net} ({' '.join(str(error).split())[:200]}); "
            "correct optimizer_args, or drop layer_decay"
        ) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its rate: `lr` times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def learning_rate(recipe: Recipe, step: int, steps: int, qualities: Sequence[float]) -> float:
    """The learning rate of one optimizer step.

    Args:
        recipe: for lr, epochs, warmup_epochs and schedule.
        step: number of steps done.
        steps: steps of an epoch.
        qualities: validation score of every epoch done, higher is better; only a plateau looks at it.
    """
    schedule = recipe.schedule
    warm = 0 if isinstance(schedule, OneCycle) else round(min(recipe.warmup_epochs, recipe.epochs / 2) * steps)
    if step < warm:
        return recipe.lr * (_COLD + (1 - _COLD) * step / warm)
    progress = min((step - warm) / max(recipe.epochs * steps - warm, 1), 1.0)
    match schedule:
        case Cosine():
            share = _between(1.0, schedule.floor, progress)
        case Step():
            share = schedule.gamma ** math.floor(step / steps / schedule.every)
        case Plateau():
            share = schedule.gamma ** drops(qualities, schedule.patience)
        case OneCycle() if progress < schedule.rise:
            share = _between(schedule.start, 1.0, progress / schedule.rise)
        case OneCycle():
            share = _between(1.0, schedule.floor, (progress - schedule.rise) / (1 - schedule.rise))
        case Polynomial():
            share = (1 - progress) ** schedule.power
        case Constant():
            share = 1.0
    return recipe.lr * share


def drops(qualities: Sequence[float], patience: int) -> int:
    """How often a plateau was reached: `patience` epochs in a row that are no better than the best before them."""
    count, waiting, best = 0, 0, -math.inf
    for quality in qualities:
        waiting = 0 if quality > best else waiting + 1
        best = max(best, quality)
        if waiting == patience:
            count, waiting = count + 1, 0
    return count


def _between(first: float, last: float, progress: float) -> float:
    """Half a cosine from `first` to `last`."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
