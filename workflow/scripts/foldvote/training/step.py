"""One optimizer step: a batch through the network in one or several parts, its loss, its gradients, the update."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError, first_line
from foldvote.models.factory import head_inputs, metadata_width, normalisation, to_sync_batchnorm
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.memory import is_out_of_memory, release_memory
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.compile_trial import DEFAULT, CompileTrial, Net, forget_compiled
from foldvote.training.losses import make_loss
from foldvote.training.mixup import apply_mix, as_probabilities, groups_in, mix_batch, mix_targets, plan_mix
from foldvote.training.phases import drop_path_share
from foldvote.training.state import TrainState
from foldvote.training.training_set import without_metadata
from foldvote.training.weight_averaging import State, clone_state, copied_buffers, copied_to_cpu, copy_all


class AllOutOfMemoryError(torch.OutOfMemoryError):
    """The memory of one process of a group did not suffice, and all of them know it and have stopped at one place."""


class TrainStep:
    """The optimizer step of a run.

    The parts of a batch add up to the gradient of the whole batch; only batch normalisation and the soft macro-F1 see
    each part by itself.

    In a group of processes each passes its shard of the batch, and the last backward pass of a step gives all of them
    the mean of their gradients: that of the whole batch, as the shards are equally large. DistributedDataParallel
    decides when it is made which parameters it waits for, so the model is wrapped again when others learn than before.

    The first two updates with the same learning parameters are made with care: in the first the optimizer's states
    appear, and the second is the first that has to do with them in memory. The weights are copied before,
    so that the step can be taken again from its start whatever did not fit.

    Attributes:
        model: on the device.
        device: where and how it runs, and with which other processes.
        skipped: whether the last step was left out, because its gradients were not finite (fp16).
        compiled: the mode of torch.compile that the net is compiled in; None: it is not.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: MemberSeeds,
        state: TrainState,
        class_counts: np.ndarray,
        device: Device,
        weighted: bool = False,
        epoch_steps: float = math.inf,
        trial: CompileTrial | None = None,
        label_space: LabelSpace | None = None,
    ) -> None:
        """Set up the loss and the forward pass.

        Args:
            recipe: for the loss, the mixes of images, batch_size, clip_norm, compile and sync_bn.
            seeds: dropout and mixes are drawn by these and the step's number.
            state: model, optimizer and gradient scaler; the optimizer's learning rates are set by the caller.
            class_counts: training images of each class, shape (classes,).
            device: where and how the model runs.
            weighted: whether images have weights, to which the rows of the targets sum.
            epoch_steps: number of steps of an epoch; by default all steps are of the first one.
            trial: decides whether the net is compiled, after the first steps; None: `compile: true` does.
            label_space: the classes; only for a loss that names factors.
        """
        self.model, self.device, self._recipe, self._seeds = state.model, device, recipe, seeds
        self._optimizer, self._scaler = state.optimizer, state.scaler
        features = head_inputs(self.model) if recipe.contrasts else None
        self._classes = len(class_counts)
        self._loss = make_loss(recipe, class_counts, weighted, label_space, features)
        self._mean, self._std = normalisation(self.model, device.torch_device)
        self._beside = metadata_width(self.model)
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.compiled = DEFAULT if recipe.compile is True else None
        self._net: Net = torch.compile(self.model) if self.compiled and device.group.size == 1 else self.model
        self._trial, self._undecided = trial, trial is not None
        self._epoch_steps = epoch_steps
        paths = [part for part in self.model.modules() if isinstance(part, DropPath)]
        self._drop_paths = [(part, part.drop_prob) for part in paths if part.drop_prob]
        self._ddp: DistributedDataParallel | None = None
        self._ddp_learns: list[bool] = []  # which parameters learnt when the model was wrapped
        self._synchronised = False  # whether batch normalisation waits for the other processes
        self._learns: list[bool] = []  # which parameters learnt in the last step
        self._careful = 0  # steps that are still to be taken with care
        self._updating, self.skipped = False, False
        if self._scaler.is_enabled():  # its scale is made now rather than in the first step
            self._scaler.scale(torch.zeros((), device=device.torch_device))

    def __call__(self, batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int) -> torch.Tensor:
        """Take one step.

        Args:
            batch: uint8 images (batch, height, width, 3); in a group of processes this one's shard of the batch.
            targets: class codes (batch,) or probabilities (batch, classes), or more of `TrainingSet.batch_targets`. The
                metadata that the network sees comes before them, (batch, width + columns), and is mixed like them.
            number: number of the step in the run, from 0.
            parts: number of parts, over all processes, in which the batch goes through the network.

        Returns:
            The mean loss of the batch, or of this process's shard; a detached scalar on the device.

        Raises:
            AllOutOfMemoryError: in a group, by every process if the memory of one does not suffice for a careful step.
        """
        batch, images, soft = self._on_device(batch, targets)
        self._prepare_ddp(images, soft, parts)
        self._seed(number)
        epoch = int(number // self._epoch_steps)
        if epoch < self._recipe.epochs - self._recipe.mix_off_epochs:
            groups = groups_in(targets, self._recipe.tells_groups)
            images, soft = self._mix(batch, images, soft, self._seeds.key("mix", number), groups)
        for part, rate in self._drop_paths:
            part.drop_prob = rate * drop_path_share(self._recipe, epoch)
        progressive = self._recipe.progressive
        if progressive is not None and epoch < progressive.epochs:
            smaller = F.interpolate(images, parse_size(progressive.size), mode="bilinear", antialias=True)
            images = smaller.contiguous(memory_format=self.device.layout)
        loss = self._accumulate_gradients(self._net, images, soft, parts, self._no_sync_before_last)
        if self._recipe.sam is not None:
            self._take_gradients_uphill(self._recipe.sam, images, soft, number, parts)
        self._updating = True
        self._together(self._update)
        self._updating = False
        return loss

    def fit_in_memory(
        self, batch: torch.Tensor, targets: torch.Tensor, number: int, parts: int, steps_ahead: int = 0
    ) -> tuple[torch.Tensor, int]:
        """Take one step, in twice as many parts as long as the memory of the device does not suffice.

        A step that a gradient scaler leaves out changes nothing: neither weights nor buffers.

        Args:
            batch: uint8 images (batch, height, width, 3), as for a step, and so `targets` and `number`.
            targets: class codes (batch,) or probabilities (batch, classes).
            number: number of the step in the run.
            parts: number of parts of the first try.
            steps_ahead: number of steps for which a compiled net has to pay, if there is a trial.

        Returns:
            The loss, and the number of parts that fitted.

        Raises:
            UserError: if not even parts of two images fit.
            Exception: what memory.is_out_of_memory tells, if an update failed half-way that was not copied before, or
                one process of a group while the others wait for it.
        """
        learns = [parameter.requires_grad for parameter in self.model.parameters()]
        if learns != self._learns:
            self._learns, self._careful = learns, 2
            self._decide_anew()
        if self._undecided and not self._careful:  # memory has been found to suffice
            self._choose_net(batch, targets, parts, steps_ahead)
        buffers = copied_buffers(self.model)
        weights = self._copied_weights() if self._careful else None
        while True:
            try:
                loss = self(batch, targets, number, parts)
                break
            except Exception as error:
                if not is_out_of_memory(error) or not self._can_repeat(error):
                    raise
                whole = len(batch) * self.device.group.size
                if whole // (2 * parts) < 2:
                    raise UserError(
                        f"memory: not even parts of {whole // parts} images fit on the device "
                        f"({first_line(error)}); choose a smaller net or size, or set grad_checkpointing: true"
                    ) from error
            self._undo(buffers, weights)
            self._decide_anew()
            parts *= 2
            release_memory()
            log(
                f"memory: the batch did not fit; it goes through the net in {parts} parts, the optimizer step is the "
                "same"
            )
        if self.skipped:
            copy_all(list(self.model.buffers()), buffers)
        else:
            self._careful = max(self._careful - 1, 0)
        return loss, parts

    def _choose_net(self, batch: torch.Tensor, targets: torch.Tensor, parts: int, steps_ahead: int) -> None:
        """Let the trial decide whether the net is compiled. It changes neither weights nor buffers."""
        assert self._trial is not None
        _, images, soft = self._on_device(batch, targets)

        def run(net: Net) -> None:
            self._accumulate_gradients(net, images, soft, parts, lambda _last: nullcontext())

        recipe, buffers = self._recipe, copied_buffers(self.model)
        of = {name: getattr(recipe, name) for name in ("net", "size", "batch_size", "grad_checkpointing")}
        of |= {"parts": parts, "learning": sum(self._learns), "dtype": str(self.device.dtype).removeprefix("torch.")}
        whole = parts == 1 and recipe.sam is None  # which needs the gradients of two passes at once
        self._net, self.compiled = self._trial.choose(self.model, of, whole, run, steps_ahead)
        copy_all(list(self.model.buffers()), buffers)
        self.model.zero_grad(set_to_none=True)
        self._undecided = False

    def _decide_anew(self) -> None:
        """Go on with the net as it is, until the trial, if there is one, has decided for what has changed."""
        if self._trial is not None:
            if self.compiled:
                forget_compiled()
            self._net, self.compiled, self._undecided = self.model, None, True

    def _on_device(self, batch: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The batch on the device, its normalised images, and its targets as probabilities."""
        batch = batch.to(self.device.torch_device, non_blocking=True)
        soft = as_probabilities(targets.to(self.device.torch_device, non_blocking=True), self._classes)
        return batch, self.device.normalise(batch, self._mean, self._std), soft

    def _update(self) -> None:
        """Clip the gradients and move the weights; `skipped` tells whether the gradient scaler left that out."""
        scale = self._scaler.get_scale()
        if self._recipe.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.skipped = self._scaler.get_scale() < scale  # it is lowered for that reason alone

    def _together(self, act: Callable[[], None]) -> None:
        """Do something that may not fit; with care, all processes of a group learn whether it fitted in each.

        Raises:
            AllOutOfMemoryError: in every process of a group, if the memory of one does not suffice in a careful step.
        """
        group, failed = self.device.group, False
        if group.size == 1 or not self._careful:
            act()
            return
        try:
            act()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if group.max(failed):
            raise AllOutOfMemoryError("out of memory in one of the processes")

    def _can_repeat(self, error: Exception) -> bool:
        """Whether a step that did not fit can be taken again from its start.

        Not if the update moved weights of which there is no copy, or if other processes are in the middle of the step.
        """
        alone = self.device.group.size == 1 or isinstance(error, AllOutOfMemoryError)
        return alone and (self._careful > 0 or not self._updating)

    def _copied_weights(self) -> tuple[State, dict[str, Any]]:
        """Copies of the weights and the optimizer's state on the CPU."""
        return clone_state(dict(self.model.named_parameters()), "cpu"), copied_to_cpu(self._optimizer.state_dict())

    def _undo(self, buffers: list[torch.Tensor], weights: tuple[State, dict[str, Any]] | None) -> None:
        """Set everything back to what it was before a step that did not fit."""
        self.model.zero_grad(set_to_none=True)
        copy_all(list(self.model.buffers()), buffers)
        if self._scaler.is_enabled():  # it refuses to unscale twice, unless its scale is set
            self._scaler.update(self._scaler.get_scale())
        if self._updating and weights is not None:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(weights[0][name])
            self._optimizer.load_state_dict(weights[1])
        self._updating = False

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
            labels, beside = without_metadata(some_targets, self._beside)
            with around(number == own):
                with self.device.autocast():
                    logits = net(some_images, *beside)
                loss = self._loss(logits.float(), labels) * (len(some_images) / len(images))
                self._scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _take_gradients_uphill(
        self, radius: float, images: torch.Tensor, targets: torch.Tensor, number: int, parts: int
    ) -> None:
        """Replace the gradients by those of weights moved by `radius` along them (Foret et al., ICLR 2021).

        The second pass drops what the first one dropped, and its batch-normalisation statistics are not kept. A
        gradient scaler needs no care: its factor cancels out, and what is not finite makes it leave the step out.
        """
        learning = [one for one in self._parameters if one.grad is not None]
        gradients = [one.grad for one in learning if one.grad is not None]
        own, buffers = [one.detach().clone() for one in learning], copied_buffers(self.model)
        with torch.no_grad():
            norm = nn.utils.get_total_norm(gradients)
            torch._foreach_add_(learning, torch._foreach_mul(gradients, radius / (norm + 1e-12)))
        self._seed(number)
        try:
            self._accumulate_gradients(self._net, images, targets, parts, self._no_sync_before_last)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(learning, own)
            copy_all(list(self.model.buffers()), buffers)

    def _seed(self, number: int) -> None:
        """Seed what the network draws in step `number`."""
        rank = self.device.group.rank
        torch.manual_seed(self._seeds.key("step", number, *([rank] if rank else [])))

    def _mix(
        self, batch: torch.Tensor, images: torch.Tensor, targets: torch.Tensor, seed: int, groups: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix images and targets with partners from the whole batch, also where this process has a shard of it."""
        group, mixes = self.device.group, self._recipe.mix
        if group.size == 1:
            return mix_batch(mixes, images, targets, seed, groups)
        whole = None if groups is None else group.gather(torch.from_numpy(groups)).numpy()
        plan = plan_mix(mixes, group.size * len(images), images.shape[-2], images.shape[-1], seed, whole)
        if plan is None:
            return images, targets
        order = torch.from_numpy(group.shard(plan.order)).to(self.device.torch_device)
        partners = self.device.normalise(group.gather(batch)[order], self._mean, self._std)
        others = group.gather(targets)[order]
        return apply_mix(plan, images, partners), mix_targets(plan, targets, others, groups is not None)

    def _prepare_ddp(self, images: torch.Tensor, targets: torch.Tensor, parts: int) -> None:
        """Wrap the model in DistributedDataParallel, where there are several processes and others learn than before.

        In a careful step a first pass without communication tells all processes whether the memory of one does not
        suffice: a process that gave up within a real pass would leave the others waiting for its gradients.

        DistributedDataParallel sums gradients in buckets. Where it has to find unused parameters, it leaves the buckets
        as they are. Otherwise it makes new ones after its first pass, and sums in another order than a run that is
        resumed: three processes or more would end with other bytes.

        Raises:
            AllOutOfMemoryError: in every process, if the memory of any does not suffice.
        """
        if self.device.group.size == 1:
            return
        if self._careful and not self._synchronised:
            buffers = copied_buffers(self.model)
            self._together(
                lambda: self._accumulate_gradients(self.model, images, targets, parts, lambda _last: nullcontext())
            )
            copy_all(list(self.model.buffers()), buffers)
            self.model.zero_grad(set_to_none=True)
        if self._learns == self._ddp_learns:
            return
        if self._recipe.sync_bn and not self._synchronised:  # not earlier: its forward pass waits for the others, too
            self.model = to_sync_batchnorm(self.model)
            self._synchronised = True
        self._ddp = DistributedDataParallel(self.model, gradient_as_bucket_view=True, find_unused_parameters=True)
        # In this order torch cuts the compiled graph where a bucket of gradients is sent.
        self._net = torch.compile(self._ddp) if self.compiled else self._ddp
        self._ddp_learns = self._learns

    def _no_sync_before_last(self, last: bool) -> AbstractContextManager[None]:
        """Gradients add up in this process until the last part, and are sent with it."""
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()
