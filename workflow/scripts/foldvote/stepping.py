"""One optimizer step: a batch through the net in one or several parts, its loss, its gradients, the update."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foldvote.batches import Draws
from foldvote.compute import Compute
from foldvote.console import say
from foldvote.errors import Refusal
from foldvote.losses import make_loss
from foldvote.mixes import draw_mix, mix_batch, mixed
from foldvote.models import head_parameters, normalisation
from foldvote.passes import Passes
from foldvote.recipes import Recipe

Step = Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]
LESS_MEMORY = "lower batch_size, or set accumulate: 2, grad_checkpointing: true or precision: bf16"


def make_step(
    recipe: Recipe,
    draws: Draws,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    counts: np.ndarray,
    compute: Compute,
) -> Step:
    """The optimizer step of a run, as a function of what changes from step to step.

    Args:
        recipe: loss, mixes, clipping, compilation.
        draws: dropout and mixes are drawn by the step's number.
        model: placed on the device.
        optimizer: its rates are set.
        scaler: of gradients.
        counts: training images of each class, shape (classes,).
        compute: where and how.

    Returns:
        A function of uint8 images (batch, height, width, 3), targets (codes (batch,) or shares (batch, classes)), the
        step's number in the run, and the number of parts, giving the mean loss of the batch, detached. All parts add
        up to the gradient of the whole batch; only batch normalisation and the soft macro-F1 see the parts by
        themselves.

    In a team, images and targets are this process's share of the batch, and so is the loss; `parts` counts those of
    all processes, and the gradient is that of the whole batch. Then the function raises OutOfMemoryError in every
    process if the memory of one did not suffice for a first backward pass.
    """
    team = compute.team
    mean, std = normalisation(model, compute.device)
    passes = Passes(model, make_loss(recipe, counts), scaler, compute, compiled=recipe.compile, sync_bn=recipe.sync_bn)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step(batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int) -> torch.Tensor:
        batch = batch.to(compute.device, non_blocking=True)
        images = compute.images(batch, mean, std)
        shares = as_shares(targets.to(compute.device, non_blocking=True), len(counts))
        passes.prepare(images, shares, parts)
        torch.manual_seed(draws.key("step", number, *([team.rank] if team.rank else [])))
        images, shares = mixed_share(batch, images, shares, draws.key("mix", number))
        total = passes.gradients(images, shares, parts)
        if recipe.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return total

    def mixed_share(
        batch: torch.Tensor, images: torch.Tensor, shares: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's share of the mixed batch; the partners come from the shares of all."""
        if team.size == 1:
            return mix_batch(recipe.mix, images, shares, seed)
        drawn = draw_mix(recipe.mix, team.size * len(images), *images.shape[-2:], seed)
        if drawn is None:
            return images, shares
        order = torch.from_numpy(team.own(drawn.order)).to(compute.device)
        partners = compute.images(team.gather(batch)[order], mean, std)
        return mixed(drawn, images, partners), torch.lerp(team.gather(shares)[order], shares, drawn.kept)

    return step


def as_shares(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Targets as float32 rows that sum to 1: codes become one-hot, rows stay as they are."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


def set_learning(model: nn.Module, head_only: bool) -> None:
    """Training mode for the whole net or for its head alone, whose features then stay exactly as they were.

    A frozen net keeps its batch-normalisation statistics as well: they are part of its features.
    """
    head = head_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not head_only or name in head)
    model.train(not head_only)
    if head_only:
        model.get_classifier().train()


def fit_in_memory(
    take: Callable[[int], torch.Tensor], model: nn.Module, parts: int, batch_size: int
) -> tuple[torch.Tensor, int]:
    """Take the first step in as many parts as the memory asks for.

    Args:
        take: the step as a function of the number of parts.
        model: its buffers are put back before another try.
        parts: number of parts of the first try.
        batch_size: images of the batch; a part holds at least two.

    Returns:
        The loss, and the number of parts that fitted.

    Raises:
        Refusal: if not even parts of two images fit.
    """
    buffers = [buffer.clone() for buffer in model.buffers()]
    while True:
        try:
            return take(parts), parts
        except torch.OutOfMemoryError as error:
            if batch_size // (2 * parts) < 2:
                raise Refusal(
                    f"memory: not even parts of {batch_size // parts} images fit on the device; choose a smaller net "
                    "or size, or set grad_checkpointing: true"
                ) from error
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        model.zero_grad(set_to_none=True)
        parts *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(f"memory: the batch did not fit; it goes through the net in {parts} parts, the optimizer step is the same")
