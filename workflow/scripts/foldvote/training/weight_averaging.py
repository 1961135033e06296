"""Averages of weights over a training: exponential (EMA), stochastic (SWA), and of the best epochs (soup).

Averages are plain state dicts, which checkpoints hold as they are; counters such as `num_batches_tracked` are those of
the newest weights. The averaging models of torch and timm count and warm up differently, and hold a second network.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from foldvote.config.recipe import Recipe

State = dict[str, torch.Tensor]


def ema_weight(decay: float, updates: int) -> float:
    """The weight of the newest weights in an exponential average (Polyak & Juditsky, 1992).

    The decay rises from 0.1 to its final value, so that the random initial weights are soon forgotten.

    Args:
        decay: its final value.
        updates: number of updates before this one.
    """
    return 1 - min(decay, (1 + updates) / (10 + updates))


def lerp_(average: State, newest: State, weight: float) -> None:
    """Move an average towards the newest weights, in place: average + weight * (newest - average).

    Counters, which are not floating-point, are copied.
    """
    floats = [name for name, tensor in average.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floats], [newest[name] for name in floats], weight)
    for name in average.keys() - set(floats):
        average[name].copy_(newest[name])


def model_soup(states: Sequence[State]) -> State:
    """The mean of several weights (Wortsman et al., ICML 2022)."""
    mean = {name: tensor.clone() for name, tensor in states[0].items()}
    for number, state in enumerate(states[1:], start=2):
        lerp_(mean, state, 1 / number)
    return mean


def swa_starts(recipe: Recipe) -> int:
    """The first epoch, from 0, whose weights enter the stochastic average; without `swa` one after the last."""
    return recipe.epochs if recipe.swa is None else min(int(recipe.swa * recipe.epochs), recipe.epochs - 1)


@contextmanager
def with_weights(model: nn.Module, state: State) -> Iterator[nn.Module]:
    """Give the model other weights for the block."""
    own = clone_state(model.state_dict())
    model.load_state_dict(state)
    try:
        yield model
    finally:
        model.load_state_dict(own)


def recompute_batchnorm(model: nn.Module, images: Iterable[torch.Tensor]) -> None:
    """Recompute the batch-normalisation statistics, as averaged weights need it (Izmailov et al., UAI 2018).

    Args:
        model: its running means and variances are replaced.
        images: normalised batches (batch, 3, height, width) on the model's device; not read for a network without
            batch normalisation.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        update_bn(images, model)


def clone_state(state: State, device: str | torch.device | None = None) -> State:
    """Copies of all tensors, on their own device or another."""
    return {name: tensor.detach().to(device or tensor.device, copy=True).contiguous() for name, tensor in state.items()}
