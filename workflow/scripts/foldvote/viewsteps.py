"""What of the test-time views does not go with albumentations or with the models, as far as names tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from foldvote.recipes import Augment, AugmentStep
from foldvote.sections import parse_size
from foldvote.transforms import transform_faults
from foldvote.viewnames import parsed, view_name


def view_faults(views: Sequence[str | dict[str, Any]], sizes: Mapping[str, str]) -> list[str]:
    """What is wrong with checked views.

    Args:
        views: as `Predict.views` has them.
        sizes: the size of each model, such as "128x96".

    Returns:
        A line for each fault, such as "gamma: RandomGama: no such policy, step or transform; did you mean
        'RandomGamma'?". Values of arguments are not looked at; prediction does that before its first image.
    """
    faults = []
    for view in views:
        name = view_name(view)
        if isinstance(view, dict):
            faults += [f"{name}: {fault}" for fault in _step_faults(view["steps"])]
        faults += [
            f"{name}: {fault}, and models.{model} has {size}"
            for model, size in sizes.items()
            if (fault := turn_fault(view, *parse_size(size)))
        ][:1]
    return faults


def view_steps(written: Any) -> list[AugmentStep]:
    """The steps of a view, written as a recipe's `augment`.

    Raises:
        ValidationError: if they are not written so.
    """
    return TypeAdapter(Augment).validate_python(written)


def turn_fault(view: str | dict[str, Any], height: int, width: int) -> str | None:
    """What is wrong with turning images of this size as a view does, or None."""
    written = view if isinstance(view, str) else view.get("then")
    turned = any(part.word == "rotate" and part.number in (90, 270) for part in (parsed(written) if written else ()))
    return "a quarter turn needs images as high as wide" if turned and height != width else None


def _step_faults(written: Any) -> list[str]:
    try:
        return transform_faults(view_steps(written))
    except ValidationError as error:
        fault = error.errors()[0]
        return [f"steps: {fault['msg'].removeprefix('Value error, ')} (it is {str(fault.get('input'))[:60]!r})"]
