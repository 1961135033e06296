"""Errors that pydantic finds in a configuration, each as one line for the person who wrote the file."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from foldvote.errors import did_you_mean


def readable_errors(source: str, error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """One line for each fault: file, key, what is wrong and what to do.

    Args:
        source: the name of the file.
        error: as pydantic raised it.
        root: the model that was validated. Its fields give the names of known keys, and a field's description says
            what is expected where a text does not match the field's pattern.
    """
    for fault in error.errors():
        place, kind, field = _place(fault["loc"], root)
        where = ".".join(str(part) for part in place if part != "[key]")
        if not where and fault["type"] != "value_error":  # an error of the whole file names its keys itself
            where = "the file"
        for line in _message(fault, str(place[-1] if place else ""), kind, field).split("\n"):
            yield ": ".join(filter(None, (source, where, line)))


def _message(fault: Any, key: str, kind: Any, field: FieldInfo | None) -> str:
    given, context = fault.get("input"), fault.get("ctx", {})
    told = f" (it is {_short(given)})"
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key{did_you_mean(key, kind.model_fields)}"
        case "missing":
            return "missing; add it"
        case "union_tag_not_found":
            return f"its key {context['discriminator']} is missing; add one of {', '.join(_tags(kind))}"
        case "union_tag_invalid":
            return f"no {context['tag']!r}{did_you_mean(context['tag'], _tags(kind))} (known: {', '.join(_tags(kind))})"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"must hold `key: value` lines{told}"
        case "string_pattern_mismatch" if key != "[key]" and field and field.description:
            return f"must be {field.description}{told}"
        case "string_pattern_mismatch":
            return f"{given!r} is no name; use up to 64 letters, digits, _ . and -, the first a letter or digit"
        case "too_short":
            return f"needs at least {context['min_length']} of them, has {context['actual_length']}"
        case "value_error":
            return str(context["error"])
        case _:
            text = fault["msg"].replace("Input should be", "must be")
            return f"{text[0].lower()}{text[1:]}{told}"


def _place(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[list[str | int], Any, FieldInfo | None]:
    """Where a fault is: its keys as in the file, the type that contains the last key, and that key's field.

    pydantic inserts the chosen member of a union among the keys; it is left out here.
    """
    place: list[str | int] = []
    holder: Any = None
    field: FieldInfo | None = None
    kind: Any = root
    for part in loc:
        if _is_union(kind) and isinstance(part, str):
            kind = _tags(kind).get(part)
            continue
        place.append(part)
        holder = kind
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            kind = get_args(kind)[-1] if get_origin(kind) in (dict, list) else None
        kind = _without_notes(kind)
    return place, (kind if _is_union(kind) else holder), field


def _without_notes(kind: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    if get_origin(kind) is Annotated:
        return _without_notes(get_args(kind)[0])
    others = [member for member in get_args(kind) if member is not type(None)] if _is_union(kind) else []
    return _without_notes(others[0]) if len(others) == 1 else kind


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _tags(union: Any) -> dict[str, type[BaseModel]]:
    """The members of a tagged union, by tag."""
    members = [member for member in get_args(union) if isinstance(member, type) and issubclass(member, BaseModel)]
    return {
        tag: member
        for member in members
        for field in member.model_fields.values()
        if get_origin(field.annotation) is Literal and field.default is PydanticUndefined
        for tag in get_args(field.annotation)
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
