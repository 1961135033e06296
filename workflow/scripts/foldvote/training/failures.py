"""What fails in the middle of a training, said in words."""

from foldvote.config.recipe import Recipe
from foldvote.errors import UserError, first_line

LESS_MEMORY = "lower batch_size, or set accumulate: 2, grad_checkpointing: true or precision: bf16"
_TOLD = f"{UserError.__module__}.{UserError.__qualname__}: "


def as_raised(error: UserError) -> UserError:
    """An error as it was raised: torch puts the traceback of a loader process before the text of its error."""
    _, inside, text = str(error).rpartition(_TOLD)
    return UserError(*text.splitlines()) if inside else error


def memory_advice(error: BaseException, recipe: Recipe, parts: int) -> tuple[str, int]:
    """What to do after a step that did not fit and cannot be taken again.

    Args:
        error: says that memory did not suffice.
        recipe: for batch_size.
        parts: number of parts of the step, over all processes.

    Returns:
        The advice, and the number of parts with which the next start should go on.
    """
    told = f"out of memory ({first_line(error)}); another process may use the device"
    if recipe.batch_size // (2 * parts) < 2:
        return f"{told}; {LESS_MEMORY}", parts
    again = f"the same command goes on from the last checkpoint, with batches in {2 * parts} parts"
    return f"{told}; {again}; if that does not help, {LESS_MEMORY}", 2 * parts
