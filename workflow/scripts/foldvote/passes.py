"""The forward and backward passes of a training step, in one process or in each of a team."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from foldvote.compute import Compute
from foldvote.losses import LossFunction
from foldvote.models import with_shared_statistics

Net = Callable[[torch.Tensor], torch.Tensor]


class Passes:
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
        compute: Compute,
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
            self._model = with_shared_statistics(self._model)
            self._sync_bn = False
        self._wrapped = DistributedDataParallel(self._model, gradient_as_bucket_view=True, find_unused_parameters=idle)
        # In this order torch cuts the compiled graph where a bucket of gradients is sent.
        self._net = torch.compile(self._wrapped) if self._compiled else self._wrapped
