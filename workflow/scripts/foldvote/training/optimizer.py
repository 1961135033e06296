"""Optimizer and learning rate of a recipe.

The learning rate depends on the step number and the validation history only, so that a checkpoint needs no scheduler
state. The schedulers of torch and timm keep such a state, and round differently.
"""

import math
from collections.abc import Sequence

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from foldvote.config.recipe import Recipe
from foldvote.config.schedules import Constant, Cosine, OneCycle, Plateau, Polynomial, Step
from foldvote.errors import UserError
from foldvote.models.factory import head_parameters

_WARMUP_START = 0.01  # of the peak learning rate


def make_optimizer(recipe: Recipe, model: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    """Make the timm optimizer of a recipe. Biases and normalisation weights have no weight decay.

    With `layer_decay`, the learning rate of each layer falls with its distance from the head (Clark et al., ICLR 2020).
    With `head_lr_factor`, the head has a learning rate of its own.

    Args:
        recipe: the recipe; optimizer, optimizer_args, lr, weight_decay, layer_decay and head_lr_factor are used.
        model: the network whose parameters are updated.
        fused: whether one kernel updates all weights, for an optimizer of torch that has one.

    Raises:
        UserError: if the optimizer does not accept the arguments, or the network does not declare its layers.
    """
    try:
        optimizer = create_optimizer_v2(
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
            f"correct optimizer_args{', or drop layer_decay' if recipe.layer_decay is not None else ''}"
        ) from error
    if 0 < recipe.freeze_epochs < recipe.epochs or recipe.head_lr_factor != 1:
        _split_groups(optimizer, model, recipe.head_lr_factor)
    for group in optimizer.param_groups:
        if fused and group.get("fused", True) is None and not group.get("foreach"):
            group["fused"] = True
            for parameter in filter(optimizer.state.__contains__, group["params"]):  # Adagrad counts from the start
                state = optimizer.state[parameter]
                state["step"] = state["step"].to(parameter.device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, backbone: float = 1.0) -> None:
    """Set the learning rate of every parameter group: `lr` times the group's own scale.

    Args:
        optimizer: made by `make_optimizer`.
        lr: learning rate that the scales of the groups refer to.
        backbone: factor of the learning rate of a backbone that was frozen at first, see `backbone_warmup`.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0) * (backbone if group.get("backbone") else 1.0)


def backbone_warmup(recipe: Recipe, step: int, steps: int) -> float:
    """The factor, up to 1, of the learning rate of a backbone that has been frozen for the first `freeze_epochs`.

    It has a warm-up of its own: the schedule may be at its peak when it begins to learn.

    Args:
        recipe: the recipe; epochs, warmup_epochs and freeze_epochs are used.
        step: number of finished steps.
        steps: number of steps per epoch.
    """
    since = step - recipe.freeze_epochs * steps
    warmup = round(min(recipe.warmup_epochs, (recipe.epochs - recipe.freeze_epochs) / 2) * steps)
    if recipe.freeze_epochs == 0 or since < 0 or since >= warmup:
        return 1.0
    return _WARMUP_START + (1 - _WARMUP_START) * since / warmup


def learning_rate(recipe: Recipe, step: int, steps: int, scores: Sequence[float]) -> float:
    """The learning rate of one optimizer step.

    Args:
        recipe: the recipe; lr, epochs, warmup_epochs and schedule are used.
        step: number of finished steps.
        steps: number of steps per epoch.
        scores: validation score of every finished epoch, higher is better; only the plateau schedule uses it.
    """
    schedule = recipe.schedule
    warmup = 0 if isinstance(schedule, OneCycle) else round(min(recipe.warmup_epochs, recipe.epochs / 2) * steps)
    if step < warmup:
        return recipe.lr * (_WARMUP_START + (1 - _WARMUP_START) * step / warmup)
    progress = min((step - warmup) / max(recipe.epochs * steps - warmup, 1), 1.0)
    match schedule:
        case Cosine():
            factor = _cosine(1.0, schedule.floor, progress)
        case Step():
            # 3 / 10 / 0.1 is a little less than 3, which would be one step late.
            factor = schedule.gamma ** math.floor(step / (steps * schedule.every) + 1e-9)
        case Plateau():
            factor = schedule.gamma ** plateaus(scores, schedule.patience)
        case OneCycle() if progress < schedule.rise:
            factor = _cosine(schedule.start, 1.0, progress / schedule.rise)
        case OneCycle():
            factor = _cosine(1.0, schedule.floor, (progress - schedule.rise) / (1 - schedule.rise))
        case Polynomial():
            factor = (1 - progress) ** schedule.power
        case Constant():
            factor = 1.0
    return recipe.lr * factor


def plateaus(scores: Sequence[float], patience: int) -> int:
    """Count the plateaus: `patience` epochs in a row that are no better than the best epoch before them.

    Args:
        scores: validation score of every finished epoch, higher is better.
        patience: number of epochs of a plateau.
    """
    count, waiting, best = 0, 0, -math.inf
    for score in scores:
        waiting = 0 if score > best else waiting + 1
        best = max(best, score)
        if waiting == patience:
            count, waiting = count + 1, 0
    return count


def _split_groups(optimizer: torch.optim.Optimizer, model: nn.Module, head_factor: float) -> None:
    """Divide each parameter group into the parameters of the head and those of the backbone (`backbone`: True).

    The learning rate of the head is `head_factor` times what it would be.
    """
    names = head_parameters(model)
    head = {id(parameter) for name, parameter in model.named_parameters() if name in names}
    groups = []
    for group in optimizer.param_groups:
        for backbone in (True, False):
            chosen = [parameter for parameter in group["params"] if (id(parameter) not in head) == backbone]
            if chosen:
                scale = group.get("lr_scale", 1.0) * (1.0 if backbone else head_factor)
                groups.append({**group, "params": chosen, "backbone": backbone, "lr_scale": scale})
    optimizer.param_groups[:] = groups


def _cosine(first: float, last: float, progress: float) -> float:
    """Cosine interpolation from `first` to `last` as `progress` goes from 0 to 1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
