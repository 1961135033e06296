"""The training of one member: one loop, which can be stopped after any step and goes on to the same bytes.

What a step draws depends on its number and not on the steps before it, the learning rate on the step's number and the
history, and everything else that changes is in the checkpoint. So an interrupted run ends with the very weights of an
undisturbed one.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from foldvote.config.image_size import parse_size
from foldvote.config.runtime import Runtime
from foldvote.errors import Interrupted, UserError, first_line
from foldvote.inference.tta import plain_view
from foldvote.io.files import write_json
from foldvote.models.factory import normalisation
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log, track
from foldvote.runtime.memory import is_out_of_memory
from foldvote.runtime.signals import stop_on_signal
from foldvote.training.checkpoint import remember_parts, save_checkpoint
from foldvote.training.compile_trial import trial_of
from foldvote.training.dataloader import ResumableSampler, end_workers, plain_batches, training_loader
from foldvote.training.device_augmentation import augmented
from foldvote.training.failures import as_raised, batches_of, memory_advice, not_finite
from foldvote.training.monitor import Clock, LossMonitor, timed
from foldvote.training.optimizer import backbone_warmup, learning_rate, set_learning_rate
from foldvote.training.phases import freeze_backbone
from foldvote.training.state import MemberSpec, run_identity, start_or_resume
from foldvote.training.step import TrainStep
from foldvote.training.targets import class_counts
from foldvote.training.tracking import Sinks, no_sinks
from foldvote.training.validation import early_stop_reason, selection_score, validate
from foldvote.training.weight_averaging import (
    State,
    clone_state,
    ema_weight,
    lerp_,
    model_soup,
    recompute_batchnorm,
    swa_starts,
    with_weights,
)

CONTINUE, SAVE, STOP = 0, 1, 2  # what the processes agree on after a step
_SAVE_EVERY = 20  # times as long as the last save took: at most one twentieth of the time goes into ends of epochs
_SHOWN = 24  # validation images shown to the sinks


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        chosen: weights that predict (state dict on the CPU).
        last: weights of the last epoch.
        epochs: the epochs, from 1, that the chosen weights are of.
        scores: their validation scores.
        history: rows of history.HISTORY.
        parts: number of parts in which a batch went through the network.
    """

    chosen: State
    last: State
    epochs: list[int]
    scores: dict[str, float]
    history: pd.DataFrame
    parts: int


def never_stop(_history: list[dict[str, Any]]) -> str:
    """Train to the last epoch."""
    return ""


class Trainer:
    """Trains one member, from its last checkpoint where there is one.

    Attributes:
        spec: the member.
        device: where and how it trains; `device.group` are the processes that train it together.
        state: model, optimizer and everything else that changes, as a checkpoint holds it.
        monitor: the losses of the epoch under way.
    """

    def __init__(
        self,
        spec: MemberSpec,
        device: Device,
        resume_dir: Path,
        runtime: Runtime,
        workers: int,
        open_sinks: Callable[[int], Sinks] = no_sinks,
        stop_early: Callable[[list[dict[str, Any]]], str] = never_stop,
    ) -> None:
        """Make the network, or load the last checkpoint.

        Args:
            spec: the member to train.
            device: where and how.
            resume_dir: the folder of its checkpoints, which nobody else writes to.
            runtime: batch size of predictions, and minutes between two checkpoints; each epoch's end saves as well.
            workers: loader processes; their number does not change the result.
            open_sinks: opens the trackers that are told of every epoch, given the number of epochs done.
            stop_early: given the history after each epoch, says why training ends before its last one, or nothing.

        Raises:
            UserError: if the network cannot be made or does not fit on the device, or a batch cannot be divided among
                the processes.
        """
        self.spec, self.device, self.runtime = spec, device, runtime
        self._resume_dir, self._workers, self._stop_early = resume_dir, workers, stop_early
        self.state = start_or_resume(spec, device, resume_dir)
        chosen, weighted = spec.training_set, spec.training_set.weights is not None
        steps, space, trial = spec.order.steps, chosen.label_space, trial_of(spec.recipe, device, resume_dir)
        counts = class_counts(chosen.targets, len(space.classes), chosen.weights)
        self._step = TrainStep(spec.recipe, spec.seeds, self.state, counts, device, weighted, steps, trial, space)
        progress = self.state.progress
        self.monitor = LossMonitor(progress.loss_sum, progress.losses, device.group.mean)
        self._clock, self._since_save, self._save_seconds = Clock(), Clock(), 0.0
        self._first_step = True
        self._sinks = open_sinks(self.state.progress.epoch)
        self._loading: Iterator[Any] | None = None

    @property
    def steps_done(self) -> int:
        """Number of optimizer steps since the start of the run."""
        return self.state.progress.steps_done(self.spec.order.steps)

    def fit(self) -> TrainResult:
        """Train to the end.

        Raises:
            Interrupted: when a signal asked to stop; the state is saved.
            UserError: if the loss is not finite, the memory does not suffice, or a loader process dies.
        """
        progress, spec = self.state.progress, self.spec
        with closing(self._sinks), stop_on_signal() as stopping, self._explain_failures():
            if progress.epoch == 0:
                self._sinks.graph(self.state.model, torch.zeros(1, 3, *parse_size(spec.recipe.size)))
            for images, targets in self._remaining_batches():
                self.train_step(images, targets)
                epoch_ends = progress.step == spec.order.steps
                request = self._agree(stopping, epoch_ends)
                if epoch_ends or request or self.monitor.due:
                    self._check_losses(epoch_ends)
                if epoch_ends:
                    self.end_epoch()
                if request:
                    self.save()
                if request == STOP:
                    raise Interrupted(f"{spec.name}: stopped as asked, state saved; the same command goes on from here")
                if epoch_ends and (reason := self._ends()):
                    log(f"{spec.name}: ends after epoch {progress.epoch}: {reason}")
                    break
        return self.result()

    def train_step(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Take one optimizer step.

        Args:
            images: uint8 (batch, height, width, 3), this process's shard of the batch.
            targets: class codes (batch,) or probabilities (batch, classes).

        Returns:
            The loss, a detached scalar on the device.
        """
        state, progress, recipe, number = self.state, self.state.progress, self.spec.recipe, self.steps_done
        scores = [selection_score(row, recipe) for row in progress.history] if self.spec.validates else []
        lr = learning_rate(recipe, number, self.spec.order.steps, scores)
        set_learning_rate(state.optimizer, lr, backbone_warmup(recipe, number, self.spec.order.steps))
        head_only = progress.epoch < recipe.freeze_epochs
        if self._first_step or progress.step == 0:
            freeze_backbone(state.model, head_only)
        self._first_step = False
        ahead = (recipe.freeze_epochs if head_only else recipe.epochs) * self.spec.order.steps - number
        loss, progress.parts = self._step.fit_in_memory(images, targets, number, progress.parts, ahead)
        progress.compiled = self._step.compiled
        if recipe.ema is not None and not self._step.skipped:
            newest = ema_weight(recipe.ema, progress.averaged, recipe.ema_warmup)
            lerp_(state.average, state.model.state_dict(), newest)
            progress.averaged += 1
        self.monitor.add(number, loss, self._step.skipped)
        progress.step += 1
        return loss

    def end_epoch(self) -> None:
        """Validate, add a row to the history, keep the weights if they are among the best, go to the next epoch."""
        state, progress, recipe = self.state, self.state.progress, self.spec.recipe
        if progress.epoch >= swa_starts(recipe):
            progress.averaged += 1
            lerp_(state.average, state.model.state_dict(), 1 / progress.averaged)
        with self._predicting_weights():
            scores, predicted = self._validate()
            best = self._keep_if_best(scores)
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": self.monitor.total / self.monitor.counted,
            **scores,
            "lr": max(group["lr"] for group in state.optimizer.param_groups),
            "seconds": self.device.group.broadcast(progress.seconds + self._clock.lap()),
            "best": best,
        }
        progress.history = [earlier | {"best": earlier["best"] and not best} for earlier in progress.history] + [row]
        progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
        self.monitor.restart()
        if self.device.group.first:
            self._report(row, predicted)

    def save(self) -> None:
        """Write a checkpoint."""
        progress = self.state.progress
        progress.loss_sum, progress.losses = self.monitor.total, self.monitor.counted
        progress.seconds += self._clock.lap()
        if self.device.group.first:
            content = self.state.state_dict() | {"fingerprint": run_identity(self.spec, self.device)}
            self._since_save.lap()
            save_checkpoint(self._resume_dir, self.steps_done, content)
            self._save_seconds = self._since_save.elapsed()
        self._since_save.lap()

    def result(self) -> TrainResult:
        """The weights that predict, as the recipe says: of the best epoch, of several together, or of the last."""
        state, progress, recipe = self.state, self.state.progress, self.spec.recipe
        history = pd.DataFrame(progress.history)
        with self._predicting_weights():
            last = clone_state(state.model.state_dict(), "cpu")
        if recipe.epoch == "last":
            scores = {name: history[name].iloc[-1] for name in history if name.startswith("val_")}
            return TrainResult(last, last, [progress.epoch], scores, history, progress.parts)
        epochs, best = [entry["epoch"] for entry in state.best_epochs], state.best_epochs[0]
        if len(epochs) == 1:
            return TrainResult(best["state"], last, epochs, best["scores"], history, progress.parts)
        with with_weights(state.model, model_soup([entry["state"] for entry in state.best_epochs])):
            self._recompute_batchnorm(max(epochs))
            scores, _ = self._validate()
            soup = clone_state(state.model.state_dict(), "cpu")
        return TrainResult(soup, last, epochs, scores, history, progress.parts)

    def _remaining_batches(self) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """The batches up to the last epoch, with a progress bar; none if the run had already ended early."""
        spec, progress, epochs = self.spec, self.state.progress, self.spec.recipe.epochs
        if progress.step == 0 and self._ends():
            return ()
        sampler = ResumableSampler(spec.order, epochs, (progress.epoch, progress.step), self.device.group)
        pin = self.device.torch_device.type == "cuda"
        self._loading = iter(training_loader(spec.augmented_images, sampler, self._workers, pin))
        batches = augmented(timed(self._loading, progress.wait), self.device.torch_device)
        return track(batches, f"{spec.name}: training steps", epochs * spec.order.steps - self.steps_done)

    def _recompute_batchnorm(self, last_epoch: int) -> None:
        """Recompute the statistics of averaged weights; `last_epoch`, from 1, is the last one in the average."""
        progress, head_only = self.state.progress, last_epoch <= self.spec.recipe.freeze_epochs
        recompute_batchnorm(self.state.model, self._plain_batches(), progress.parts, head_only, self.device)

    def _plain_batches(self) -> Iterator[torch.Tensor]:
        """The training images in batches, normalised and without augmentation, in the order of one epoch more.

        Images sorted by id would be batches of one person or class, whose statistics differ from those of a fair draw.
        """
        mean, std = normalisation(self.state.model, self.device.torch_device)
        dataset, order = self.spec.augmented_images, replace(self.spec.order, chances=None, groups=None)
        move = plain_view(self.spec.recipe).move
        for batch in plain_batches(dataset.images, dataset.rows, order.batches(self.spec.recipe.epochs)):
            yield move(self.device.normalise(batch, mean, std))

    @contextmanager
    def _predicting_weights(self) -> Iterator[None]:
        """For the block the model holds the weights that would predict now: its own, or their average."""
        if not self.state.progress.averaged:
            yield
            return
        with with_weights(self.state.model, self.state.average):
            if self.spec.recipe.swa is not None:
                self._recompute_batchnorm(swa_starts(self.spec.recipe) + self.state.progress.averaged)
            yield

    def _validate(self) -> tuple[dict[str, float], np.ndarray]:
        """Scores of the model as it is, equal in all processes, and the classes predicted; none without validation."""
        chosen, group = self.spec.training_set, self.device.group
        group.sync_buffers(self.state.model)
        if not self.spec.validates:
            return {}, np.zeros(0, np.int64)
        given = (self.state.model, chosen.images, chosen.validation, chosen.label_space, self.device)
        at_once, metrics, view = self.runtime.predict_batch, self.spec.metrics, plain_view(self.spec.recipe)
        beside = chosen.metadata.rows if chosen.metadata else None
        scores, predicted = validate(*given, at_once, metrics, view, metadata=beside)
        scores = group.broadcast(scores)
        if not math.isfinite(scores["val_loss"]):  # another score may just not be defined for these images
            raise UserError(
                f"{self.spec.name}: the validation loss is no longer finite from epoch {self.state.progress.epoch + 1} "
                "on; lower models.*.lr, or set clip_norm or precision: fp32. The last checkpoint is kept"
            )
        return scores, predicted

    def _keep_if_best(self, scores: dict[str, float]) -> bool:
        """Keep the model's weights if the epoch is among the best `soup`; whether it is better than all before."""
        if not scores:
            return False
        state, progress, recipe = self.state, self.state.progress, self.spec.recipe
        score = selection_score(scores, recipe)
        if recipe.epoch == "best" and (len(state.best_epochs) < recipe.soup or score > state.best_epochs[-1]["score"]):
            weights = clone_state(state.model.state_dict(), "cpu")
            entry = {"epoch": progress.epoch + 1, "score": score, "scores": scores, "state": weights}
            ranked = sorted([*state.best_epochs, entry], key=lambda one: (-one["score"], one["epoch"]))
            state.best_epochs = ranked[: recipe.soup]
        return all(score > selection_score(row, recipe) for row in progress.history)

    def _report(self, row: dict[str, Any], predicted: np.ndarray) -> None:
        """Tell the log and the trackers of an epoch."""
        scores = ""
        if self.spec.validates:
            scores = f"macro-F1 {row['val_macro_f1']:.3f}  accuracy {row['val_accuracy']:.3f}  "
            scores = f"validation: loss {row['val_loss']:.3f}  {scores}"
        log(
            f"{self.spec.name}  epoch {row['epoch']}/{self.spec.recipe.epochs}  loss {row['train_loss']:.3f}  "
            f"{scores}{row['seconds']:.1f} s{'  (best so far)' if row['best'] else ''}"
        )
        self._sinks.scalars({key: value for key, value in row.items() if key not in ("epoch", "best")}, row["epoch"])
        if not self.spec.validates:
            return
        images, validation = self.spec.training_set.images, self.spec.training_set.validation
        names, labels = self.spec.training_set.label_space.classes, validation["label"].to_numpy()
        shown = np.linspace(0, len(predicted) - 1, min(len(predicted), _SHOWN)).astype(int)
        pairs = [(names[labels[place]], names[predicted[place]]) for place in shown]
        captions = [truth if truth == answer else f"{truth} -> {answer}" for truth, answer in pairs]
        rows = images.rows(validation["image_id"].iloc[shown].tolist())
        self._sinks.pictures(np.stack([images[row] for row in rows]), captions, row["epoch"])

    def _ends(self) -> str:
        """Why patience, max_minutes or `stop_early` ends training after the epochs so far; empty if nothing does."""
        history = self.state.progress.history
        return early_stop_reason(history, self.spec.recipe) or self._stop_early(history) if history else ""

    def _agree(self, stopping: threading.Event, epoch_ends: bool) -> int:
        """What all processes do now: the most that any of them asks for.

        At the end of an epoch the first one asks for a checkpoint, unless saving took much of the time since the last.
        """
        elapsed = self._since_save.elapsed()
        last = epoch_ends and self.state.progress.epoch + 1 == self.spec.recipe.epochs
        worth_it = epoch_ends and self.device.group.first and elapsed >= _SAVE_EVERY * self._save_seconds
        late = last or worth_it or elapsed > self.runtime.checkpoint_minutes * 60
        return self.device.group.max(STOP if stopping.is_set() else SAVE if late else CONTINUE)

    def _check_losses(self, epoch_ends: bool) -> None:
        """Refuse to go on after losses that were not finite, and write down which images they were of.

        Args:
            epoch_ends: whether the epoch is over, which needs one finite loss.

        Raises:
            UserError: if training cannot go on.
        """
        if self.monitor.look(skips=self.state.scaler.is_enabled()) and (self.monitor.counted or not epoch_ends):
            return
        order, ids, path = self.spec.order, self.spec.augmented_images.image_ids, self._resume_dir / "not-finite.json"
        batches = batches_of(self.monitor.bad or self.monitor.skipped, order, ids)
        if self.device.group.first:
            write_json(path, batches)
        what = "the loss is" if self.monitor.bad else "gradients are"
        raise not_finite(self.spec.name, what, batches[0], path)

    @contextmanager
    def _explain_failures(self) -> Iterator[None]:
        """Say in words what failed in the middle of a run: memory, or a loader process."""
        name, progress = self.spec.name, self.state.progress
        try:
            yield
        except UserError as error:
            raise as_raised(error) from error.__cause__
        # What a dead worker shows depends on what it was doing.
        except (RuntimeError, MemoryError, OSError, EOFError) as error:
            loader_died = end_workers(self._loading, patience=1.0)
            if is_out_of_memory(error):
                advice, parts = memory_advice(error, self.spec.order.size, progress.parts)
                remember_parts(self._resume_dir, parts, run_identity(self.spec, self.device))
                raise UserError(f"{name}: epoch {progress.epoch + 1}, step {progress.step + 1}: {advice}") from error
            if not loader_died:
                raise
            raise UserError(
                f"{name}: a process that loads images died ({first_line(error)}); memory is the usual reason: lower "
                "runtime.workers; the same command goes on from the last checkpoint"
            ) from error
        finally:
            end_workers(self._loading)
            self._loading = None
