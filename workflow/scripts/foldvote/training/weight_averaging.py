"""Averages of weights during training: exponential (EMA), stochastic (SWA), and of the best epochs (soup).

Averages are plain state dicts, which a checkpoint stores as they are; integer counters such as `num_batches_tracked`
are those of the newest weights. The averaging classes of torch and timm count and warm up differently, and hold a
second network.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from foldvote.config.recipe import Recipe
from foldvote.io.files import sha256_file, whole_file
from foldvote.models.factory import head_modules
from foldvote.runtime.device import Device

State = dict[str, torch.Tensor]


def ema_weight(decay: float, updates: int, warmup: Literal["tensorflow", "timm"] = "tensorflow") -> float:
    """The weight of the newest weights in an exponential average (Polyak & Juditsky, 1992).

    The decay rises to its final value, so that the initial weights are soon forgotten: from 0.1 as in TensorFlow's
    ExponentialMovingAverage, or from 0 as in timm's ModelEmaV3 with its `use_warmup`.

    Args:
        decay: final value of the decay.
        updates: number of earlier updates.
        warmup: how it rises, the recipe's `ema_warmup`.
    """
    rising = 1 - (1 + updates) ** (-2 / 3) if warmup == "timm" else (1 + updates) / (10 + updates)
    return 1 - min(decay, rising)


def lerp_(average: State, newest: State, weight: float) -> None:
    """Move an average towards the newest weights, in place: average + weight * (newest - average).

    Tensors that are not floating-point, such as counters, are copied.

    Args:
        average: the average; changed in place.
        newest: the newest weights, with the same names and shapes.
        weight: weight of the newest weights, in 0..1.
    """
    floats = [name for name, tensor in average.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floats], [newest[name] for name in floats], weight)
    for name in average.keys() - set(floats):
        average[name].copy_(newest[name])


def model_soup(states: Sequence[State]) -> State:
    """The mean of several states (Wortsman et al., ICML 2022)."""
    mean = {name: tensor.clone() for name, tensor in states[0].items()}
    for number, state in enumerate(states[1:], start=2):
        lerp_(mean, state, 1 / number)
    return mean


def swa_starts(recipe: Recipe) -> int:
    """The first epoch, counted from 0, whose weights enter the stochastic average; `epochs` if `swa` is not set."""
    return recipe.epochs if recipe.swa is None else min(int(recipe.swa * recipe.epochs), recipe.epochs - 1)


@contextmanager
def with_weights(model: nn.Module, state: State) -> Iterator[nn.Module]:
    """Load other weights into the model during the block, and its own weights after it.

    The model is left in evaluation mode.
    """
    own = clone_state(model.state_dict())
    _load(model, state)
    try:
        yield model
    finally:
        _load(model, own)


def recompute_batchnorm(
    model: nn.Module, batches: Iterable[torch.Tensor], parts: int, head_only: bool, device: Device
) -> None:
    """Recompute the batch-normalisation statistics, which averaged weights need (Izmailov et al., UAI 2018).

    They become the mean over the statistics of all parts of all batches, in the precision of the run. Everything but
    batch normalisation is in evaluation mode: nothing is dropped, and nothing is drawn.

    Args:
        model: the network; its running means and variances are replaced. It is left in evaluation mode.
        batches: normalised batches (batch, 3, height, width) on the model's device, each a fair sample of the training
            images; not read if there are no statistics to replace.
        parts: number of parts in which a batch goes through the network, as in training.
        head_only: whether only the head has learnt: the statistics of a frozen backbone stay as they are.
        device: where and how the model runs.
    """
    model.eval()
    learning = head_modules(model) if head_only else [model]
    found = [norm for part in learning for norm in part.modules() if isinstance(norm, _BatchNorm)]
    norms = [norm for norm in found if norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # the plain mean over all passes
    with torch.no_grad(), device.autocast():
        for batch in batches:
            for part in batch.tensor_split(parts):
                model(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def clone_state(state: State, device: str | torch.device | None = None) -> State:
    """Copies of all tensors, on their own device or on another one."""
    return {name: tensor.detach().to(device or tensor.device, copy=True).contiguous() for name, tensor in state.items()}


def write_weights(weights: State, path: Path) -> str:
    """Write weights without a second copy of them in memory. Returns the SHA-256 of the file."""
    with whole_file(path) as temporary:
        save_file(weights, temporary)
        return sha256_file(temporary)


def _load(model: nn.Module, state: State) -> None:
    """Load weights, and forget what was computed from the ones before.

    Some networks of timm keep attention biases of evaluation mode until they are trained again.
    """
    model.load_state_dict(state)
    model.train().eval()


def copy_all(into: list[torch.Tensor], source: list[torch.Tensor]) -> None:
    """Copy tensors into others of their types, all of one type at once."""
    for dtype in {tensor.dtype for tensor in into}:
        pairs = [(one, other) for one, other in zip(into, source, strict=True) if one.dtype == dtype]
        torch._foreach_copy_([one for one, _ in pairs], [other for _, other in pairs])


def copied_buffers(model: nn.Module) -> list[torch.Tensor]:
    """Copies of a model's buffers, in their order."""
    copies = [torch.empty_like(buffer) for buffer in model.buffers()]
    copy_all(copies, list(model.buffers()))
    return copies


def copied_to_cpu(state: Any) -> Any:
    """A copy of nested dicts, lists and tensors, with all tensors on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied_to_cpu(value) for key, value in state.items()}
    return [copied_to_cpu(value) for value in state] if isinstance(state, list) else state
