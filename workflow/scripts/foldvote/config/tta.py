"""Test-time views: which there are, and what is wrong with those that a configuration names.

A view is a name such as `hflip`, or a mapping of a name and of transforms. What views do to images is in
foldvote.inference.tta.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from foldvote.config.augment import Augment, AugmentStep
from foldvote.config.augmentation_names import transform_faults
from foldvote.config.base import Section
from foldvote.config.image_size import parse_size
from foldvote.config.old_views import rewritten_then, rewritten_view
from foldvote.errors import did_you_mean

FIVE = ("centre", "top-left", "top-right", "bottom-left", "bottom-right")
NAMED_VIEWS = ("identity", "hflip", "vflip", "rot90", "rot180", "rot270")
QUARTER_TURNS = ("rot90", "rot270")
"""The views that only square images can have."""

_CROP = re.compile(rf"crop-({'|'.join(FIVE)})-([1-9]\d)")
_FIVE_CROPS = re.compile(r"five_crops(?:-([1-9]\d))?")
_KNOWN = (*NAMED_VIEWS, "five_crops", *(f"crop-{position}-90" for position in FIVE))
_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_KEYS = ("name", "steps", "then")


def view_name(view: str | dict[str, Any]) -> str:
    """The name of an entry of `predict.views`, as the predictions have it."""
    return view if isinstance(view, str) else view["name"]


def crop_of(name: str) -> tuple[str, int] | None:
    """`"crop-top-left-90"` -> ("top-left", 90): position and percent of both sides; None for another view."""
    crop = _CROP.fullmatch(name)
    return (crop[1], int(crop[2])) if crop else None


def checked_views(views: Any) -> Any:
    """The views with every `five_crops` replaced by the five views that it stands for.

    Args:
        views: as written: names, and mappings of name, steps and perhaps `then`.

    Returns:
        A list of names and mappings; anything but a list is returned as it is.

    Raises:
        ValueError: one line for each fault: unknown names with the nearest known one, names that earlier versions knew
            with what to write today, views that stand twice. `steps` are not checked here but by `view_faults`.
    """
    if not isinstance(views, list):
        return views
    found: list[str | dict[str, Any]] = []
    faults: list[str] = []
    for view in views:
        try:
            found += _expanded(view)
        except ValueError as error:
            faults.append(str(error))
    names = [view_name(view) for view in found]
    faults += [f"{name} stands twice; name each once" for name in sorted({n for n in names if names.count(n) > 1})]
    if faults:
        raise ValueError("\n".join(faults))
    return found


def view_faults(views: Sequence[str | dict[str, Any]], sizes: Mapping[str, str]) -> list[str]:
    """What is wrong with views whose names are right.

    Args:
        views: as `Predict.views` has them.
        sizes: the size of each model, such as "128x96".

    Returns:
        One line for each fault, such as "gamma: RandomGama: no such policy, step or transform; did you mean
        'RandomGamma'?". Values of arguments are not checked; prediction does that before its first image.
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
    turned = (view if isinstance(view, str) else view.get("then")) in QUARTER_TURNS
    return "a quarter turn needs images as high as wide" if turned and height != width else None


def _expanded(view: Any) -> list[str | dict[str, Any]]:
    """The views that one entry stands for: itself, or the five of `five_crops`."""
    if isinstance(view, dict):
        return [_checked_mapping(view)]
    if not isinstance(view, str):
        raise ValueError(f"must be names such as hflip, or mappings of name and steps (one is {view!r})")
    if five := _FIVE_CROPS.fullmatch(view):
        return [f"crop-{position}-{five[1] or 90}" for position in FIVE]
    if not _is_view(view):
        old = rewritten_view(view)
        known = f" (known: {', '.join(_KNOWN)})"
        raise ValueError(f"{view}: {old}" if old else f"no view {view!r}{did_you_mean(view, _KNOWN) or known}")
    return [view]


def _checked_mapping(view: dict[str, Any]) -> dict[str, Any]:
    name = view.get("name")
    if not isinstance(name, str) or not _OWN_NAME.fullmatch(name):
        raise ValueError(
            f"a view of steps needs a name of letters, digits, _ . and -, the first a letter (it is {name!r})"
        )
    if unknown := [str(key) for key in view if key not in _KEYS]:
        raise ValueError(
            f"{name}: unknown key {unknown[0]!r}{did_you_mean(unknown[0], _KEYS)} (known: {', '.join(_KEYS)})"
        )
    if not view.get("steps"):
        raise ValueError(f"{name}: its steps are missing; write them as in a recipe's augment")
    if _is_view(name) or _FIVE_CROPS.fullmatch(name):
        raise ValueError(f"{name}: is a view without steps; choose another name")
    then = view.get("then")
    if then is None:
        return {"name": name, "steps": view["steps"]}
    if not isinstance(then, str):
        raise ValueError(f"{name}: then must be the name of a view such as hflip (it is {then!r})")
    if _FIVE_CROPS.fullmatch(then):
        raise ValueError(f"{name}: then: {then}: stands for five views; name one of them, such as crop-centre-90")
    if not _is_view(then):
        old = rewritten_then(then)
        unknown_view = f"no view {then!r}{did_you_mean(then, NAMED_VIEWS)}"
        raise ValueError(f"{name}: then: {f'{then}: {old}' if old else unknown_view}")
    return {"name": name, "steps": view["steps"], "then": then}


def _is_view(name: str) -> bool:
    return name in NAMED_VIEWS or crop_of(name) is not None


def _step_faults(written: Any) -> list[str]:
    try:
        return transform_faults(view_steps(written))
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "value_error":
            return [f"steps: {line}" for line in str(fault["ctx"]["error"]).split("\n")]
        return [f"steps: {fault['msg']} (it is {str(fault.get('input'))[:60]!r})"]


class Predict(Section):
    """How members predict."""

    views: Annotated[list[str | dict[str, Any]], Field(min_length=1), BeforeValidator(checked_views)] = Field(
        default=["identity", "hflip"]
    )
    """Test-time views of each image; their probabilities are averaged. `identity`; `hflip` and `vflip` mirror; `rot90`,
    `rot180` and `rot270` turn anticlockwise (quarter turns: square images only); `crop-centre-90` cuts 90 % of both
    sides out of the centre and resizes it back, `crop-top-left-90` and so on out of a corner; `five_crops` or
    `five_crops-80` stands for the centre and the four corners, five views. Everything else is a mapping of transforms,
    written as in a recipe's `augment`: `{name: gamma, steps: [{RandomGamma: {gamma_limit: [80, 80], p: 1}}]}`, with
    `then: hflip` where one of the named views follows; what transforms draw depends on the view's name and the image
    alone."""
