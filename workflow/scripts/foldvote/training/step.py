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
from foldvote.models.factory import head_modules, head_parameters, normalisation, to_sync_batchnorm
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.losses import make_loss
from foldvote.training.mixup import apply_mix, mix_batch, plan_mix
from foldvote.training.state import TrainState

Net = Callable[[torch.Tensor], torch.Tensor]
LESS_MEMORY = "lower batch_size, or set accumulate: 2, grad_checkpointing: true or precision: bf16"


class TrainStep:
    """The optimizer step of a run.

    The parts of a batch add up to the gradient of the whole batch; only batch normalisation and the soft macro-F1 see
    each part by itself.

    In a group of processes each passes its shard of the batch, and the last backward pass of a step gives all of them
    the mean of their gradients: that of the whole batch, as the shards are equally large. DistributedDataParallel
    decides when it is made which parameters it waits for, so the model is wrapped again when others learn than before.

    Attributes:
        model: on the device.
        device: where and how it runs, and with which other processes.
    """

    def __init__(
        self, recipe: Recipe, seeds: MemberSeeds, state: TrainState, class_counts: np.ndarray, device: Device
    ) -> None:
        """Set up the loss and the forward pass.

        Args:
            recipe: for the loss, the mixes of images, batch_size, clip_norm, compile and sync_bn.
            seeds: dropout and mixes are drawn by these and the step's number.
            state: model, optimizer and gradient scaler; the optimizer's learning rates are set by the caller.
            class_counts: training images of each class, shape (classes,).
            device: where and how the model runs.
        """
        self.model, self.device, self._recipe, self._seeds = state.model, device, recipe, seeds
        self._optimizer, self._scaler = state.optimizer, state.scaler
        self._classes, self._loss = len(class_counts), make_loss(recipe, class_counts)
        self._mean, self._std = normalisation(self.model, device.torch_device)
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._net: Net = torch.compile(self.model) if recipe.compile and device.group.size == 1 else self.model
        self._ddp: DistributedDataParallel | None = None
        self._ddp_learns: list[bool] = []  # which parameters learnt when the model was wrapped
        self._sync_bn = recipe.sync_bn

    def __call__(self, batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int) -> torch.Tensor:
        """Take one step.

        Args:
            batch: uint8 images (batch, height, width, 3); in a group of processes this one's shard of the batch.
            targets: class codes (batch,) or probabilities (batch, classes).
            number: number of the step in the run, from 0.
            parts: number of parts, over all processes, in which the batch goes through the network.

        Returns:
            The mean loss of the batch, or of this process's shard; a detached scalar on the device.

        Raises:
            torch.OutOfMemoryError: in a group, by every process if the memory of one does not suffice for a first pass.
        """
        batch = batch.to(self.device.torch_device, non_blocking=True)
        images = self.device.normalise(batch, self._mean, self._std)
        soft = as_probabilities(targets.to(self.device.torch_device, non_blocking=True), self._classes)
        self._prepare_ddp(images, soft, parts)
        rank = self.device.group.rank
        torch.manual_seed(self._seeds.key("step", number, *([rank] if rank else [])))
        images, soft = self._mix(batch, images, soft, self._seeds.key("mix", number))
        loss = self._accumulate_gradients(self._net, images, soft, parts, self._no_sync_before_last)
        if self._recipe.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss

    def fit_in_memory(
        self, batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int
    ) -> tuple[torch.Tensor, int]:
        """Take one step, in twice as many parts as long as the memory of the device does not suffice.

        Args:
            batch: uint8 images (batch, height, width, 3), as for a step, and so `targets` and `number`.
            targets: class codes (batch,) or probabilities (batch, classes).
            number: number of the step in the run.
            parts: number of parts of the first try.

        Returns:
            The loss, and the number of parts that fitted.

        Raises:
            UserError: if not even parts of two images fit.
        """
        batch_size = self._recipe.batch_size
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        while True:
            try:
                return self(batch, targets, number, parts), parts
            except torch.OutOfMemoryError as error:
                if batch_size // (2 * parts) < 2:
                    raise UserError(
                        f"memory: not even parts of {batch_size // parts} images fit on the device; choose a smaller "
                        "net or size, or set grad_checkpointing: true"
                    ) from error
            self._restore_buffers(buffers)
            self.model.zero_grad(set_to_none=True)
            parts *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log(
                f"memory: the batch did not fit; it goes through the net in {parts} parts, the optimizer step is the "
                "same"
            )

    def _accumulate_gradients(
        self,
        net: Net,
        images: torch.Tensor,
        targets: torch.Tensor,
        parts: int,
        around: Callable[[bool], AbstractContextManager[None]],
    ) -> torch.Tensor:
        """Forward and backward passes of all parts of the batch, which leave its gradient in the parameters.

        Args:
            net: the model, as it is, compiled or wrapped.
            images: normalised, (batch, 3, height, width).
            targets: probabilities, float32 (batch, classes).
            parts: number of parts over all processes.
            around: the context of each part, given whether it is the last.

        Returns:
            The mean loss, a detached scalar.
        """
        own = parts // self.device.group.size
        self.model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device.torch_device)
        pairs = zip(images.tensor_split(own), targets.tensor_split(own), strict=True)
        for number, (some_images, some_targets) in enumerate(pairs, start=1):
            with around(number == own):
                with self.device.autocast():
                    logits = net(some_images)
                loss = self._loss(logits.float(), some_targets) * (len(some_images) / len(images))
                self._scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _mix(
        self, batch: torch.Tensor, images: torch.Tensor, targets: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix images and targets with partners from the whole batch, also where this process has a shard of it."""
        group, mixes = self.device.group, self._recipe.mix
        if group.size == 1:
            return mix_batch(mixes, images, targets, seed)
        plan = plan_mix(mixes, group.size * len(images), images.shape[-2], images.shape[-1], seed)
        if plan is None:
            return images, targets
        order = torch.from_numpy(group.shard(plan.order)).to(self.device.torch_device)
        partners = self.device.normalise(group.gather(batch)[order], self._mean, self._std)
        return apply_mix(plan, images, partners), torch.lerp(group.gather(targets)[order], targets, plan.kept)

    def _prepare_ddp(self, images: torch.Tensor, targets: torch.Tensor, parts: int) -> None:
        """Wrap the model in DistributedDataParallel, where there are several processes and others learn than before.

        A first pass without communication tells all processes whether the memory of one does not suffice: a process
        that gave up within a real pass would leave the others waiting for its gradients.

        Raises:
            torch.OutOfMemoryError: in every process, if the memory of any does not suffice.
        """
        group, learns = self.device.group, [parameter.requires_grad for parameter in self.model.parameters()]
        if group.size == 1 or learns == self._ddp_learns:
            return
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        out_of_memory = False
        try:
            self._accumulate_gradients(self.model, images, targets, parts, lambda _last: nullcontext())
        except torch.OutOfMemoryError:
            out_of_memory = True
        if group.max(out_of_memory):
            raise torch.OutOfMemoryError("the memory of one of the processes does not suffice")
        self._restore_buffers(buffers)
        unused = any(parameter.requires_grad and parameter.grad is None for parameter in self.model.parameters())
        if self._sync_bn:  # not earlier: its forward pass waits for the other processes, too
            self.model = to_sync_batchnorm(self.model)
            self._sync_bn = False
        self._ddp = DistributedDataParallel(self.model, gradient_as_bucket_view=True, find_unused_parameters=unused)
        # In this order torch cuts the compiled graph where a bucket of gradients is sent.
        self._net = torch.compile(self._ddp) if self._recipe.compile else self._ddp
        self._ddp_learns = learns

    def _no_sync_before_last(self, last: bool) -> AbstractContextManager[None]:
        """Gradients add up in this process until the last part, and are sent with it."""
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()

    def _restore_buffers(self, saved: list[torch.Tensor]) -> None:
        for buffer, before in zip(self.model.buffers(), saved, strict=True):
            buffer.copy_(before)


def as_probabilities(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Targets as float32 (batch, classes), rows summing to 1: codes become one-hot, probabilities stay as they are."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


def freeze_backbone(model: nn.Module, head_only: bool) -> None:
    """Set the whole network to training mode, or its head alone.

    The backbone of a network whose head alone learns keeps its batch-normalisation statistics as well: they are part
    of the features.
    """
    head = head_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not head_only or name in head)
    model.train(not head_only)
    if head_only:
        for part in head_modules(model):
            part.train()
