"""Errors that pydantic finds in a configuration, each as one line for the person who wrote the file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from foldvote.config.field_types import accepts, is_section, is_union, plain_type, tagged_members
from foldvote.config.other_names import meant_key
from foldvote.errors import did_you_mean

_NEAR = 0.7
_NO_WORD = "?"  # accepted by fields that take any text
_MAPPING = ("dict_type", "model_type", "model_attributes_type")
_LINES = "`key: value` lines"
_SWITCHES = {"True": "true", "False": "false", "None": "null"}  # YAML's words for Python's
_EXPECTED = {  # by pydantic's name of the fault: what must be there
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(_MAPPING, _LINES),
}


@dataclass(frozen=True)
class _Fault:
    """A fault of pydantic, and where it is.

    Attributes:
        told: as pydantic tells it.
        place: its keys, as in the file.
        holder: the type that contains the last key.
        kind: the type of its value.
        field: the field of the last key; None where that is none.
        union: number of the keys up to the first union without tags, each of whose members has faults of its own;
            None without one.
    """

    told: Any
    place: tuple[str | int, ...]
    holder: Any
    kind: Any
    field: FieldInfo | None
    union: int | None

    @property
    def key(self) -> str:
        """The last key."""
        return str(self.place[-1] if self.place else "")


def readable_errors(source: str, error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """One line for each fault: file, key, what is wrong and what to do.

    Args:
        source: the name of the file.
        error: as pydantic raised it.
        root: the model that was validated. Its fields give the names of known keys, and a field's description says
            what is expected where a value does not fit the field's pattern.
    """
    of_values: dict[Any, list[_Fault]] = {}
    for number, told in enumerate(error.errors()):
        fault = _placed(told, root)
        of_values.setdefault(number if fault.union is None else fault.place[: fault.union], []).append(fault)
    for faults in of_values.values():
        for fault, text in _texts(faults, root):
            where = ".".join(str(part) for part in fault.place if part != "[key]")
            if not where and fault.told["type"] != "value_error":  # an error of the whole file names its keys itself
                where = "the file"
            yield from (": ".join(filter(None, (source, where, line))) for line in text.split("\n"))


def _texts(faults: Sequence[_Fault], root: type[BaseModel]) -> Iterator[tuple[_Fault, str]]:
    """What to say of one value: of the members of a union, only what is wrong in the one that was meant.

    A member that reports a fault within the value, or one of its meaning, has taken the value for its own.
    """
    first = faults[0]
    if first.union is None:
        yield first, _message(first, root)
        return
    within = [fault for fault in faults if len(fault.place) > first.union]
    of_meaning = [fault for fault in faults if fault.told["type"] not in ("literal_error", *_EXPECTED)]
    meant = within or of_meaning
    for fault in meant:
        words = [word for other in faults for word in _words(other)] if fault.told["type"] == "value_error" else []
        yield fault, _message(fault, root) + (f", or {' or '.join(words)}" if words and not within else "")
    if not meant:
        yield first, _wrong_kind(faults)


def _message(fault: _Fault, root: type[BaseModel]) -> str:
    told, tags = fault.told, tagged_members(fault.kind)
    given, context = told.get("input"), told.get("ctx", {})
    match told["type"]:
        case "extra_forbidden":
            return f"unknown key{meant_key(fault.key, fault.holder.model_fields, root)}"
        case "missing":
            return "missing; add it"
        case "union_tag_not_found":
            return f"its key {context['discriminator']} is missing; add one of {', '.join(tags)}"
        case "union_tag_invalid":
            return f"no {context['tag']!r}{did_you_mean(context['tag'], tags)} (known: {', '.join(tags)})"
        case "string_pattern_mismatch" if fault.key == "[key]" or not (fault.field and fault.field.description):
            return f"{given!r} is no name; use up to 64 letters, digits, _ . and -, the first a letter or digit"
        case "too_short":
            return f"needs at least {context['min_length']} of them, has {context['actual_length']}"
        case "value_error":
            return str(context["error"])
        case _:
            return _wrong_kind([fault])


def _wrong_kind(faults: Sequence[_Fault]) -> str:
    """What a value must be that is of none of the kinds that a field takes, which one it is, and what to write.

    Args:
        faults: those of the members of a union, or the only one.
    """
    field, given = faults[0].field, faults[0].told.get("input")
    is_it = f" (it is {_short(given)})"
    if field and field.description:
        return f"write {field.description}{is_it}"
    words = [word for fault in faults for word in _words(fault)]
    others = [text for fault in faults if not _words(fault) for text in _expected(fault)]
    *first, last = dict.fromkeys([*words, *others])
    verb = "hold" if (first, last) == ([], _LINES) else "be"
    listed = " or ".join(filter(None, (", ".join(first), last)))
    guess = did_you_mean(given, [word.strip("'") for word in words], _NEAR) if isinstance(given, str) else ""
    return f"must {verb} {listed}{is_it}{guess or _instead(faults, given)}"


def _words(fault: _Fault) -> list[str]:
    """The words and numbers that a choice is of, as YAML has them."""
    if fault.told["type"] != "literal_error":
        return []
    return [_SWITCHES.get(word, word) for word in _parts(str(fault.told["ctx"]["expected"]))]


def _expected(fault: _Fault) -> list[str]:
    """What a value may be that is of no choice."""
    text = fault.told["msg"].removeprefix("Input should be ")
    return _parts(_EXPECTED[fault.told["type"]]) if fault.told["type"] in _EXPECTED else [text[0].lower() + text[1:]]


def _parts(text: str) -> list[str]:
    return text.replace(" or ", ", ").split(", ")


def _instead(faults: Sequence[_Fault], given: Any) -> str:
    """What to write instead of a value of another kind, such as `; write {by: class}`; or nothing."""
    field, section, kinds = faults[0].field, faults[0].kind, {fault.told["type"] for fault in faults}
    if faults[0].key == "epoch" and isinstance(given, int):
        return f"; for the number of epochs write epochs: {given}"
    if given is False and field and accepts(field, None):
        return "; write null"
    if isinstance(given, bool | None):
        return ""
    if "list_type" in kinds and field and not isinstance(given, dict) and accepts(field, [given]):
        return f"; write {_flow([given])}"
    if kinds & set(_MAPPING) and (tags := tagged_members(section)):
        return f"; begin with {field.discriminator if field else 'name'}, one of {', '.join(tags)}"
    if kinds & set(_MAPPING) and is_section(section):
        return _in_its_key(section, given)
    return ""


def _in_its_key(section: type[BaseModel], given: Any) -> str:
    """A mapping for a value that stands in place of a section: the value in the key that takes it, if one does."""
    required = {name: field for name, field in section.model_fields.items() if field.is_required()}
    for name, field in (required or section.model_fields).items():
        for value in (given, [given]) if not isinstance(given, list) else (given,):
            # A text that nothing requires, such as a file, says nothing of its meaning.
            told_apart = name in required or not accepts(field, _NO_WORD if value is given else [_NO_WORD])
            if told_apart and accepts(field, value):
                rest = "".join(f", {other}: ..." for other in required if other != name)
                return f"; write {_flow({name: value})[:-1]}{rest}}}"
    return ""


def _flow(value: Any) -> str:
    """A list or mapping as YAML, in one line."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=float("inf"))).strip()


def _placed(told: Any, root: type[BaseModel]) -> _Fault:
    """Where a fault is. pydantic inserts the chosen member of a union among the keys; it is left out here."""
    place: list[str | int] = []
    union: int | None = None
    holder: Any = None
    field: FieldInfo | None = None
    kind: Any = root
    for part in told["loc"]:
        if is_union(kind) and isinstance(part, str):
            if part not in tagged_members(kind) and union is None:
                union = len(place)
            kind = tagged_members(kind).get(part)
            continue
        place.append(part)
        holder = kind
        if is_section(kind):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            field = None
            kind = get_args(kind)[-1] if get_origin(kind) in (dict, list) else None
        kind = plain_type(kind)
    return _Fault(told, tuple(place), holder, kind, field, union)


def _short(value: Any) -> str:
    text = _SWITCHES.get(str(value), repr(value)) if isinstance(value, bool | None) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
