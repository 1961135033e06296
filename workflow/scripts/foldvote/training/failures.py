"""What fails in the middle of a training, said in words."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foldvote.errors import UserError, first_line
from foldvote.training.dataloader import EpochOrder

LESS_MEMORY = "lower batch_size, or set accumulate: 2, grad_checkpointing: true or precision: bf16"
_TOLD = f"{UserError.__module__}.{UserError.__qualname__}: "


def as_raised(error: UserError) -> UserError:
    """An error as it was raised: torch puts the traceback of a loader process before the text of its error."""
    _, inside, text = str(error).rpartition(_TOLD)
    return UserError(*text.splitlines()) if inside else error


def memory_advice(error: BaseException, batch: int, parts: int) -> tuple[str, int]:
    """What to do after a step that did not fit and cannot be taken again.

    Args:
        error: says that memory did not suffice.
        batch: number of images of the step, over all processes.
        parts: number of parts of the step, over all processes.

    Returns:
        The advice, and the number of parts with which the next start should go on.
    """
    told = f"out of memory ({first_line(error)}); another process may use the device"
    if batch // (2 * parts) < 2:
        return f"{told}; {LESS_MEMORY}", parts
    again = f"the same command goes on from the last checkpoint, with batches in {2 * parts} parts"
    return f"{told}; {again}; if that does not help, {LESS_MEMORY}", 2 * parts


def batches_of(numbers: Iterable[int], order: EpochOrder, image_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The batches of some steps of a training: `epoch` and `step`, from 1, and `image_ids`.

    Args:
        numbers: of the steps, from 0 at the start of the training.
        order: of the training images.
        image_ids: of the training images.
    """
    batches = []
    for epoch, step in (divmod(number, order.steps) for number in numbers):
        names = [image_ids[place] for place in order.batches(epoch)[step]]
        batches.append({"epoch": epoch + 1, "step": step + 1, "image_ids": names})
    return batches


def not_finite(name: str, what: str, first: Mapping[str, Any], path: Path) -> UserError:
    """The error of a training whose loss or gradients are no longer finite.

    Args:
        name: the member, for the text.
        what: `the loss is` or `gradients are`.
        first: epoch and step, from 1, of the first such batch.
        path: the file that names the images of these batches.
    """
    return UserError(
        f"{name}: {what} no longer finite from epoch {first['epoch']}, step {first['step']} on; lower models.*.lr, or "
        f"set clip_norm or precision: fp32. The last good checkpoint is kept; the images of those steps are in {path}"
    )
