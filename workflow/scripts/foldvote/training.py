"""The training of one member: one loop, from which every run can be stopped and gone on with to the byte.

What a step draws depends on its number and not on the steps before it, the learning rate on the step's number and the
history, and everything else that changes is in the checkpoint. So an interrupted run ends with the very weights of an
undisturbed one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from foldvote.averaging import blend, ema_weight
from foldvote.batches import Plan, training_loader
from foldvote.checkpoint import save_checkpoint
from foldvote.compute import Compute
from foldvote.console import say, track
from foldvote.epochs import Trained, close_epoch, finished
from foldvote.errors import Interrupted, Refusal
from foldvote.files import write_json
from foldvote.losswatch import LossWatch
from foldvote.optimization import rate, set_rate
from foldvote.run import Member, Progress, Run, start_or_resume
from foldvote.sections import Runtime, parse_size
from foldvote.stepping import LESS_MEMORY, fit_in_memory, make_step, set_learning
from foldvote.stopping import stop_on_signal
from foldvote.targets import class_counts
from foldvote.team import Team
from foldvote.tracking import Sinks
from foldvote.validation import enough, quality

SAVE, STOP = 1, 2  # what can be asked of all processes after a step


def no_sinks(_epochs: int) -> Sinks:
    """Tell nobody."""
    return Sinks({}, say)


def never_enough(_history: list[dict[str, Any]]) -> str:
    """Train on."""
    return ""


def fit(
    member: Member,
    compute: Compute,
    folder: Path,
    workers: int,
    runtime: Runtime,
    open_sinks: Callable[[int], Sinks] = no_sinks,
    also_enough: Callable[[list[dict[str, Any]]], str] = never_enough,
) -> Trained:
    """Train one member, from its last checkpoint where there is one.

    Args:
        member: what to train.
        compute: where and how.
        folder: its resume folder, which nobody else writes to.
        workers: loader processes; they do not change the result.
        runtime: batch size of predictions, and time between two checkpoints; each epoch's end saves as well.
        open_sinks: gives what is told of every epoch, as a function of the number of epochs done.
        also_enough: given the history after each epoch, says why training ends before its last one, or nothing.

    Raises:
        Interrupted: when a signal asked to stop; the state is saved.
        Refusal: if the loss is not finite, the memory does not suffice, or a loader process dies.
    """
    recipe, order, team = member.recipe, member.order, compute.team
    run = start_or_resume(member, compute, folder)
    progress, watch, clock = run.progress, LossWatch(run.progress.loss_sum, team.mean), Clock()
    counts = class_counts(member.lessons.targets, len(member.lessons.scheme.classes))
    step = make_step(recipe, member.draws, run.model, run.optimizer, run.scaler, counts, compute)
    over, sinks = bool(enough(progress.history, recipe)), open_sinks(progress.epoch)
    if not (over or progress.epoch):
        sinks.graph(run.model, torch.zeros(1, 3, *parse_size(recipe.size)))
    with closing(sinks), stop_on_signal() as stopping, _told_faults(member, run):
        for batch, targets in () if over else _batches(member, progress, workers, compute):
            done = progress.epoch * order.steps + progress.step
            watch.add(done, _advance(member, run, partial(step, batch, targets, done), done, first=not watch.begun))
            progress.step += 1
            epoch_ends = progress.step == order.steps
            asked = team.most(_asked(stopping, clock.since_lap() > runtime.checkpoint_minutes * 60))
            saves = epoch_ends or asked > 0
            if (saves or watch.due) and not watch.look(skips=run.scaler.is_enabled()):
                raise Refusal(_not_finite(member, watch, folder, team))
            if not saves:
                continue
            progress.loss_sum = watch.total
            if epoch_ends:
                close_epoch(member, run, compute, runtime.predict_batch, clock.lap, sinks)
                watch.total = 0.0
            else:
                progress.seconds += clock.lap()
            if team.first:
                save_checkpoint(folder, done + 1, run.state() | {"fingerprint": member.fingerprint})
            if asked == STOP:
                raise Interrupted(f"{member.name}: stopped as asked, state saved; the same command goes on from here")
            if epoch_ends and (reason := enough(progress.history, recipe) or also_enough(progress.history)):
                say(f"{member.name}: ends after epoch {progress.epoch}: {reason}")
                break
    return finished(member, run, compute, runtime.predict_batch)


def _advance(member: Member, run: Run, take: Callable[[int], torch.Tensor], done: int, *, first: bool) -> torch.Tensor:
    """Take one optimizer step and give its loss."""
    recipe, progress, steps = member.recipe, run.progress, member.order.steps
    set_rate(run.optimizer, rate(recipe, done, steps, [quality(row, recipe) for row in progress.history]))
    if first or progress.step == 0:
        set_learning(run.model, head_only=progress.epoch < recipe.freeze_epochs)
    if first:
        loss, progress.parts = fit_in_memory(take, run.model, progress.parts, recipe.batch_size)
    else:
        loss = take(progress.parts)
    if recipe.ema is not None:
        blend(run.average, run.model.state_dict(), ema_weight(recipe.ema, progress.averaged))
        progress.averaged += 1
    return loss


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def since_lap(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start

    def lap(self) -> float:
        """Seconds so far, and start anew."""
        seconds = self.since_lap()
        self._start += seconds
        return seconds


def _asked(stopping: threading.Event, late: bool) -> int:
    """What this process asks of all: to stop, to save (`late`), or nothing."""
    return STOP if stopping.is_set() else SAVE if late else 0


def _batches(
    member: Member, progress: Progress, workers: int, compute: Compute
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What is left of the run's batches, with progress shown."""
    plan = Plan(member.order, member.recipe.epochs, (progress.epoch, progress.step), compute.team)
    loader = training_loader(member.images, plan, workers, pin=compute.device.type == "cuda")
    left = (member.recipe.epochs - progress.epoch) * member.order.steps - progress.step
    return track(loader, f"{member.name}: training steps", left)


@contextmanager
def _told_faults(member: Member, run: Run) -> Iterator[None]:
    """What befalls the machine in the middle of a run, in words."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        place = f"{member.name}: epoch {run.progress.epoch + 1}, step {run.progress.step + 1}"
        raise Refusal(f"{place}: out of memory; another process may use the device; {LESS_MEMORY}") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise Refusal(
            f"{member.name}: a process that loads images died ({str(error).splitlines()[0]}); memory is the usual "
            "reason: lower runtime.workers; the same command goes on from the last checkpoint"
        ) from error


def _not_finite(member: Member, watch: LossWatch, folder: Path, team: Team) -> str:
    """Leave the ids of the batches whose loss was not finite beside the checkpoint, and say so."""
    steps, ids = member.order.steps, member.images.image_ids
    batches = [
        {
            "epoch": number // steps + 1,
            "step": number % steps + 1,
            "image_ids": [ids[place] for place in member.order.batches(number // steps)[number % steps]],
        }
        for number in watch.bad
    ]
    if team.first:
        write_json(folder / "not-finite.json", batches)
    first = batches[0]
    return (
        f"{member.name}: the loss is no longer finite from epoch {first['epoch']}, step {first['step']} on; lower "
        f"models.*.lr, or set clip_norm or precision: fp32. The last good checkpoint is kept; the images of those "
        f"steps are in {folder / 'not-finite.json'}"
    )
