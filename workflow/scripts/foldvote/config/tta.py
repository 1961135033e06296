"""Test-time transforms: their names and what they stand for."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
)

from foldvote.config.augmentation_names import transform_faults
from foldvote.config.base import Section, parse_size
from foldvote.config.recipe import Augment, AugmentStep
from foldvote.errors import did_you_mean

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
FIVE = ("centre", *CORNERS)
POSITIONS = (*FIVE, "top", "bottom", "left", "right")
PIXEL_WORDS = frozenset({"brightness", "contrast", "clahe"})
"""What changes the uint8 pixels; every other part moves them."""


class TtaStep(NamedTuple):
    """One part of a view's name, such as `rotate-8`.

    Attributes:
        word: identity, hflip, vflip, rotate, scale, crop-POSITION, brightness, contrast or clahe.
        number: rotate: degrees in (0, 360), anticlockwise. scale and crop: percent of the side. brightness and
            contrast: percent more, below 0 less. clahe: the clip limit. Else 0.
    """

    word: str
    number: float = 0.0


class _Form(NamedTuple):
    """What is written before a number: the part's word, the factor of its number, bounds, an example."""

    word: str
    factor: int
    low: float
    high: float
    example: str
    nothing: float | None = None  # the number that would change nothing


_WORDS = {name: TtaStep(name) for name in ("identity", "hflip", "vflip")} | {"clahe": TtaStep("clahe", 2.0)}
_FORMS = {
    "rotate+": _Form("rotate", 1, 0, 359, "8", 0),
    "rotate-": _Form("rotate", -1, 0, 359, "8", 0),
    **{f"crop-{position}-": _Form(f"crop-{position}", 1, 10, 99, "90", 100) for position in POSITIONS},
    "scale-": _Form("scale", 1, 50, 200, "115", 100),
    "brighter-": _Form("brightness", 1, 0, 100, "20", 0),
    "darker-": _Form("brightness", -1, 0, 90, "20", 0),
    "contrast+": _Form("contrast", 1, 0, 100, "20", 0),
    "contrast-": _Form("contrast", -1, 0, 90, "20", 0),
    "clahe-": _Form("clahe", 1, 1, 40, "4"),
}
_EXAMPLES = (
    f" (known: {', '.join([*_WORDS, 'five_crops', *(f'{stem}{form.example}' for stem, form in _FORMS.items())])})"
)
_JOINT = re.compile(r"\+(?!\d)")  # the plus of rotate+8 joins nothing
_NUMBERED = re.compile(r"(.*[^\d.])(\d{1,3}(?:\.\d{1,2})?)")
_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_KEYS = ("name", "steps", "then")
_SHARE = "90"  # of five_crops


def parsed(name: str) -> tuple[TtaStep, ...]:
    """The parts of a view's name, in the order written.

    Raises:
        ValueError: if it is none; the nearest known name is told.
    """
    parts = tuple(_tta_step(text) for text in _JOINT.split(name))
    if len(parts) > 1 and TtaStep("identity") in parts:
        raise ValueError(f"{name}: identity changes nothing; drop it from the combination")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{name}: says one thing twice; name each part once")
    return parts


def view_name(view: str | dict[str, Any]) -> str:
    """The name of an entry of `predict.views`, as the predictions have it."""
    return view if isinstance(view, str) else view["name"]


def checked_views(views: Any) -> Any:
    """The views with every `five_crops` replaced by the five views that it stands for.

    Args:
        views: as written: names, and mappings of name, steps and perhaps `then`.

    Returns:
        A list of names and mappings; anything but a list is handed on as it is.

    Raises:
        ValueError: a line for each fault: unknown names with the nearest known one, views that stand twice. What
            stands in `steps` is not looked at (`tta.view_faults` does that).
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
    faults += _doubled(found)
    if faults:
        raise ValueError("\n".join(faults))
    return found


def _expanded(view: Any) -> list[str | dict[str, Any]]:
    if isinstance(view, dict):
        return [_checked_mapping(view)]
    if not isinstance(view, str):
        raise ValueError(f"must be names such as hflip, or mappings of name and steps (one is {view!r})")
    choices = [_alias(text) for text in _JOINT.split(view)]
    names = ["+".join(parts) for parts in product(*choices)]
    for name in names:
        parsed(name)
    return list(names)


def _alias(text: str) -> list[str]:
    """The parts that a part stands for: itself, unless it is `five_crops`."""
    if not _is_alias(text):
        return [text]
    number = text.removeprefix("five_crops").removeprefix("-") or _SHARE
    return [f"crop-{position}-{number}" for position in FIVE]


def _is_alias(text: str) -> bool:
    return text == "five_crops" or text.startswith("five_crops-")


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
    if _is_known(name):
        raise ValueError(f"{name}: is a view without steps; choose another name")
    then = view.get("then")
    if then is None:
        return {"name": name, "steps": view["steps"]}
    if not isinstance(then, str):
        raise ValueError(f"{name}: then must be the name of a view such as hflip (it is {then!r})")
    try:
        parsed(then)
    except ValueError as error:
        raise ValueError(f"{name}: then: {error}") from None
    return {"name": name, "steps": view["steps"], "then": then}


def _is_known(name: str) -> bool:
    try:
        return bool(_expanded(name))
    except ValueError:
        return False


def _tta_step(text: str) -> TtaStep:
    if text in _WORDS:
        return _WORDS[text]
    if _is_alias(text):
        raise ValueError(f"{text}: stands for five views; name one of them, such as crop-centre-{_SHARE}")
    numbered = _NUMBERED.fullmatch(text)
    stem, number = numbered.groups() if numbered else (text, "")
    form = _FORMS.get(stem)
    if form is None or not number:
        known = [*_WORDS, "five_crops", *(f"{stem}{number or form.example}" for stem, form in _FORMS.items())]
        raise ValueError(f"no view {text!r}{did_you_mean(text, known) or _EXAMPLES}")
    value = float(number)
    if value == form.nothing:
        raise ValueError(f"{text}: changes nothing; write identity")
    if not form.low <= value <= form.high:
        raise ValueError(f"{text}: its number must be from {form.low:g} to {form.high:g}")
    value *= form.factor
    return TtaStep(form.word, value % 360 if form.word == "rotate" else value)


def _doubled(views: list[str | dict[str, Any]]) -> list[str]:
    """Views that stand twice, under one name or two."""
    first: dict[Any, str] = {}
    faults = []
    for view in views:
        name = view_name(view)
        parts = parsed(name) if isinstance(view, str) else ()
        does = tuple(sorted(parts, key=lambda part: part.word not in PIXEL_WORDS)) or name
        if does in first:
            same = f"{name} stands twice" if first[does] == name else f"{first[does]} and {name} are the same view"
            faults.append(f"{same}; name each once")
        first.setdefault(does, name)
    return sorted(set(faults))


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


class Predict(Section):
    """How members predict."""

    views: Annotated[list[str | dict[str, Any]], Field(min_length=1), BeforeValidator(checked_views)] = Field(
        default=[
            "identity",
            "hflip",
        ]
    )
    """Test-time transforms; their probabilities are averaged. Names: `identity`, `hflip`, `vflip`; `rotate+8` turns by
    8 degrees anticlockwise, `rotate-8` clockwise (mirrored at the edges; quarter turns of square images only);
    `crop-centre-90` cuts out 90 % of both sides, so does `crop-top-left-90` at that corner (any corner, or top,
    bottom, left, right), and `five_crops` or `five_crops-80` stands for the centre and the corners, five views;
    `scale-115` zooms in to 115 %, `scale-85` out; `brighter-20`, `darker-20`, `contrast+20`, `contrast-20` are in
    percent; `clahe` or `clahe-4` (its clip limit). `+` joins, as in `hflip+crop-centre-90`: pixels are changed first,
    then moved, in the order written. Steps as in a recipe's `augment` are a mapping,
    `{name: gamma, steps: [{RandomGamma: {gamma_limit: [80, 80], p: 1}}]}`, with `then: hflip` where a named view is to
    follow; what they draw depends on the view's name and the image alone."""
