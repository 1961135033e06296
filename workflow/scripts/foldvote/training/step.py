"""One optimizer step: a batch through the network in one or several parts, its loss, its gradients, the update."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from foldvote.config.recipe import Recipe
from foldvote.errors import UserError
from foldvote.models.factory import head_parameters, normalisation, to_sync_batchnorm
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.losses import LossFunction, make_loss
from foldvote.training.mixup import apply_mix, mix_batch, plan_mix

Net = Callable[[torch.Tensor], torch.Tensor]


class GradientPasses:
    """Leaves the gradient of a batch in a net's parameters.

    In a team each process passes its share of the batch, and the last backward pass of a step gives all of them the
    mean of their gradients: that of the whole batch, as their shares are equal. DistributedDataParallel decides at its
    making which parameters it waits for; so the net is wrapped anew when others learn than before.

    Args:
        model: placed on its device.
        loss_of: the loss of logits (float32) and shares of the classes.
        scaler: of gradients.
        compute: where and how, and beside which other processes.
        compiled: whether the net runs through torch.compile.
        sync_bn: whether, in a team, batch normalisation is over the images of all processes.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: LossFunction,
        scaler: torch.amp.GradScaler,
        compute: Device,
        *,
        compiled: bool,
        sync_bn: bool,
    ) -> None:
        self._model, self._loss_of, self._scaler, self._compute = model, loss_of, scaler, compute
        self._compiled, self._sync_bn = compiled, sync_bn
        self._net: Net = torch.compile(model) if compiled and compute.team.size == 1 else model
        self._wrapped: DistributedDataParallel | None = None
        self._waited_for: list[bool] = []

    def prepare(self, images: torch.Tensor, shares: torch.Tensor, parts: int) -> None:
        """Make sure that a team can pass such a batch; alone there is nothing to prepare.

        The first batch is passed without sending anything, so that all know if the memory of one does not suffice: a
        process that gave up within a real pass would leave the others waiting for its gradients.

        Args:
            images: as for `gradients`, and so the others.

        Raises:
            torch.OutOfMemoryError: in every process, if the memory of any does not suffice.
        """
        team, learning = self._compute.team, [parameter.requires_grad for parameter in self._model.parameters()]
        if team.size == 1 or learning == self._waited_for:
            return
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        short = False
        try:
            self._pass(self._model, images, shares, parts, self._alone)
        except torch.OutOfMemoryError:
            short = True
        if team.most(short):
            raise torch.OutOfMemoryError("the memory of a process of the team does not suffice")
        for buffer, before in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        self._wrap()
        self._waited_for = learning

    def gradients(self, images: torch.Tensor, shares: torch.Tensor, parts: int) -> torch.Tensor:
        """Pass a batch and give its mean loss, detached.

        Args:
            images: normalised, (batch, 3, height, width); in a team this process's share of the batch.
            shares: of the classes, float32 (batch, classes).
            parts: parts that the batch is passed in, one after the other; in a team those of all processes.
        """
        return self._pass(self._net, images, shares, parts, self._sending)

    def _pass(
        self,
        net: Net,
        images: torch.Tensor,
        shares: torch.Tensor,
        parts: int,
        around: Callable[[bool], AbstractContextManager[None]],
    ) -> torch.Tensor:
        own = parts // self._compute.team.size
        self._model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._compute.device)
        cut = zip(images.tensor_split(own), shares.tensor_split(own), strict=True)
        for number, (some_images, some_shares) in enumerate(cut, start=1):
            with around(number == own):
                with self._compute.autocast():
                    logits = net(some_images)
                loss = self._loss_of(logits.float(), some_shares) * (len(some_images) / len(images))
                self._scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _sending(self, last: bool) -> AbstractContextManager[None]:
        """Gradients add up in this process until the last part, and are sent with it."""
        return nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()

    def _alone(self, _last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def _wrap(self) -> None:
        """Wrap the net for what learns now, after backward passes that show which parameters take part."""
        idle = any(parameter.requires_grad and parameter.grad is None for parameter in self._model.parameters())
        if self._sync_bn:  # only now: its forward pass waits for the other processes, too
            self._model = to_sync_batchnorm(self._model)
            self._sync_bn = False
        self._wrapped = DistributedDataParallel(self._model, gradient_as_bucket_view=True, find_unused_parameters=idle)
        # In this order torch cuts the compiled graph where a bucket of gradients is sent.
        self._net = torch.compile(self._wrapped) if self._compiled else self._wrapped


Step = Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]
LESS_MEMORY = "lower batch_size, or set accumulate: 2, grad_checkpointing: true or precision: bf16"


def make_step(
    recipe: Recipe,
    draws: MemberSeeds,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    counts: np.ndarray,
    compute: Device,
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
    passes = GradientPasses(
        model, make_loss(recipe, counts), scaler, compute, compiled=recipe.compile, sync_bn=recipe.sync_bn
    )
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
        drawn = plan_mix(recipe.mix, team.size * len(images), *images.shape[-2:], seed)
        if drawn is None:
            return images, shares
        order = torch.from_numpy(team.own(drawn.order)).to(compute.device)
        partners = compute.images(team.gather(batch)[order], mean, std)
        return apply_mix(drawn, images, partners), torch.lerp(team.gather(shares)[order], shares, drawn.kept)

    return step


def as_shares(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Targets as float32 rows that sum to 1: codes become one-hot, rows stay as they are."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


def freeze_backbone(model: nn.Module, head_only: bool) -> None:
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
        UserError: if not even parts of two images fit.
    """
    buffers = [buffer.clone() for buffer in model.buffers()]
    while True:
        try:
            return take(parts), parts
        except torch.OutOfMemoryError as error:
            if batch_size // (2 * parts) < 2:
                raise UserError(
                    f"memory: not even parts of {batch_size // parts} images fit on the device; choose a smaller net "
                    "or size, or set grad_checkpointing: true"
                ) from error
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        model.zero_grad(set_to_none=True)
        parts *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log(f"memory: the batch did not fit; it goes through the net in {parts} parts, the optimizer step is the same")
