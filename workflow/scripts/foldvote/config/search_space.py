"""The space of a hyperparameter search: which keys of a recipe are searched over which values.

Keys are dotted, as in `optimizer_args.momentum`. Where a recipe has a list of named entries (`loss`, `mix`, `augment`),
the name selects the entry: `loss.focal.gamma`, `augment.hflip`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from foldvote.config.base import Section
from foldvote.config.other_names import meant_key
from foldvote.config.recipe import Recipe
from foldvote.errors import did_you_mean
from foldvote.io.files import canonical

# The fields below are called float and int, as in the file.
Real: TypeAlias = float
Whole: TypeAlias = int

Values = Mapping[str, Any]
"""Values of keys, such as {"lr": 0.01, "augment.hflip": 0.5}."""

# Trials are scored on their last epoch, which was not chosen on the scored images, so these keys have no effect.
AS_SCORED = {"epoch": "last", "soup": 1, "patience": None}
_OF_THE_SCORE = {"factors": "it changes the classes that are scored"}
_OF_THE_SCORE |= dict.fromkeys(AS_SCORED, "trials are scored on their last epoch, which nothing has chosen")
_OWN_NUMBER = {"augment": "strength", "loss": "weight", "mix": "p"}  # the number that an entry's name alone stands for


class Dimension(Section):
    """The values of one key: `{float: [low, high]}`, `{int: [low, high]}` or `{choice: [...]}`."""

    log: bool = False
    """Search a range on a logarithmic scale."""
    step: Annotated[Real, Field(gt=0)] | None = None
    """Distance between neighbouring values of a range; null: any value (whole numbers: 1)."""
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    """The possible values, of any kind: texts, numbers, null, lists, mappings."""
    when: dict[str, Any] = Field(default={})
    """Search this key only when other searched keys have one of these values, such as {optimizer: [sgd, momentum]};
    otherwise it keeps the recipe's value."""
    int: tuple[Whole, Whole] | None = None
    """Lowest and highest whole number."""
    float: tuple[Real, Real] | None = None
    """Lowest and highest number."""

    @field_validator("when")
    @classmethod
    def _each_a_list(cls, when: dict[str, Any]) -> dict[str, Any]:
        return {key: value if isinstance(value, list) else [value] for key, value in when.items()}

    @model_validator(mode="after")
    def _consistent(self) -> "Dimension":
        if faults := list(_dimension_faults(self)):
            raise ValueError("\n".join(faults))
        return self

    @property
    def range(self) -> tuple[Real, Real] | None:
        """Lowest and highest value; None where the values are listed."""
        return self.float or self.int

    def ends(self) -> list[Any]:
        """Every listed value, or the two ends of the range."""
        return list(self.choice or self.range or ())


Space = Mapping[str, Dimension]


def label(value: Any) -> str:
    """The text that identifies a listed value: a text itself, anything else as JSON."""
    return value if isinstance(value, str) else canonical(value)


def space_faults(space: Space) -> list[str]:
    """One line for each fault of a space by itself; whether the recipe accepts the values is checked elsewhere."""
    faults = [*_key_faults(space)]
    try:
        ordered(space)
    except CycleError as error:
        faults.append(f"when: {' -> '.join(error.args[1])} is a circle; break it")
    if faults:
        return faults
    met = {key for key, _ in corners(space)}
    return [f"{key}.when: its conditions are never met together; mend them" for key in space if key not in met]


def ordered(space: Space) -> list[str]:
    """The keys, each after the keys that its conditions name.

    Raises:
        CycleError: if conditions depend on each other in a circle.
    """
    return list(TopologicalSorter({key: [*dimension.when] for key, dimension in space.items()}).static_order())


def is_active(dimension: Dimension, values: Values) -> bool:
    """Whether a key is searched, given the values of the other keys."""
    return all(key in values and label(values[key]) in map(label, allowed) for key, allowed in dimension.when.items())


def with_values(recipe: Recipe, values: Values) -> dict[str, Any]:
    """A recipe with some values replaced, not yet checked: the input of `Recipe.model_validate`.

    Args:
        recipe: the recipe to start from; it is not changed.
        values: the new values, by dotted key.

    Raises:
        ValueError: if a key does not exist in this recipe; the text says which part of it.
    """
    raw = recipe.model_dump(mode="json")
    for key in sorted(values, key=lambda key: key.count(".")):  # a part comes after the whole that contains it
        root, *rest = key.split(".")
        if rest:
            _put(raw[root], root, rest, values[key])
        else:
            raw[root] = _written_out(root, values[key])
    return raw


def own_values(recipe: Recipe, space: Space) -> dict[str, Any] | None:
    """The recipe's own values of the searched keys; None where the recipe is not a point of the space."""
    values: dict[str, Any] = {}
    for key in ordered(space):
        dimension = space[key]
        if not is_active(dimension, values):
            continue
        same = [value for value in _candidates(recipe, key, dimension) if _changes_nothing(recipe, key, value)]
        if not same:
            return None
        values[key] = same[0]
    return values


def assignments(names: Iterable[str], space: Space) -> list[dict[str, Any]]:
    """All combinations of the listed values and ends of ranges of some keys and of the keys that they depend on."""
    needed = set(names)
    while more := {other for key in needed for other in _dependencies(key, space)} - needed:
        needed |= more
    found: list[dict[str, Any]] = [{}]
    for key in (key for key in ordered(space) if key in needed):
        dimension = space[key]
        found = [
            values | more
            for values in found
            for more in ([{key: value} for value in dimension.ends()] if is_active(dimension, values) else [{}])
        ]
    return found


def corners(space: Space) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each key with each of its listed values or ends: the key, and its value with those of the keys it depends on."""
    return ((key, values) for key in space for values in assignments([key], space) if key in values)


def below(roots: Iterable[str], space: Space) -> list[str]:
    """The searched keys that are, or lie below, some keys of a recipe."""
    return [key for key in space if key.split(".")[0] in set(roots)]


def _key_faults(space: Space) -> Iterator[str]:
    for key, dimension in space.items():
        root = key.split(".")[0]
        if root not in Recipe.model_fields:
            guess = meant_key(root, Recipe.model_fields)
            yield f"{key}: is no key of a recipe, and only recipes are searched{guess}"
        elif root in _OF_THE_SCORE:
            yield f"{key}: cannot be searched: {_OF_THE_SCORE[root]}; drop it"
        elif root == "pack" and not dimension.choice:
            yield f"{key}: images are packed before the first trial, so list its values, such as choice: [1.0, 1.25]"
        for other, values in dimension.when.items():
            listed = [label(value) for value in (space[other].choice or [])] if other in space else []
            if other not in space:
                yield f"{key}.when: {other!r} is not searched{did_you_mean(other, space)}"
            elif not listed:
                yield f"{key}.when: {other!r} has no list of values (choice) that a condition could name"
            yield from (
                f"{key}.when: {other} is never {label(value)!r}; its values: {', '.join(listed)}"
                for value in values
                if listed and label(value) not in listed
            )


def _dimension_faults(dimension: Dimension) -> Iterator[str]:
    given = [name for name in ("float", "int", "choice") if getattr(dimension, name) is not None]
    if len(given) != 1:
        yield f"needs one of float, int, choice{f', has {len(given)}' if given else ''}"
        return
    if dimension.choice is not None:
        labels = [label(value) for value in dimension.choice]
        if doubled := sorted({text for text in labels if labels.count(text) > 1}):
            yield f"choice: {', '.join(doubled)} stands twice; name each once"
        if dimension.log or dimension.step is not None:
            yield "log and step are for ranges; drop them beside choice"
        return
    low, high = dimension.range or (0, 0)
    if not low < high:
        yield f"{given[0]}: must be [low, high] with low below high (it is [{low}, {high}])"
    if dimension.log and low <= 0:
        yield f"log: a logarithmic scale begins above 0, not at {low}; raise it"
    if dimension.log and dimension.step is not None:
        yield "log and step exclude each other; drop one"
    if dimension.step is not None:
        steps = (high - low) / dimension.step
        if abs(steps - round(steps)) > 1e-6:
            yield f"step: {high} is no whole number of steps of {dimension.step:g} above {low}; change one of them"
        if dimension.int is not None and dimension.step != int(dimension.step):
            yield f"step: must be a whole number for int (it is {dimension.step:g})"


def _dependencies(key: str, space: Space) -> list[str]:
    """The searched keys that decide whether this one is searched, or that set the value of which it is a part."""
    parts = key.split(".")
    wholes = [".".join(parts[:length]) for length in range(1, len(parts))]
    return [*space[key].when, *(whole for whole in wholes if whole in space)]


def _written_out(root: str, value: Any) -> Any:
    """A key's value in its full form, in which its parts can be found; unchanged where the key does not accept it."""
    field = Recipe.model_fields[root]
    kind: Any = Annotated[field.annotation, *field.metadata, Field()]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError:
        return value


def _put(node: Any, root: str, rest: list[str], value: Any) -> None:
    """Set the value at the key `root.rest` below `node`, which is the value of `root`."""
    where = root
    for part in rest[:-1]:
        node = _inside(node, part, where)
        where = f"{where}.{part}"
    last = rest[-1]
    if isinstance(node, list):
        node, last = _entry(node, last, where), _OWN_NUMBER.get(root, last)
    elif isinstance(node, dict) and "arguments" in node and root == "augment":
        node = _inside(node, "arguments", where)
    if not isinstance(node, dict):
        raise ValueError(f"{where} is {label(node)} and has no {last!r}; give it a value in the recipe, or add `when`")
    node[last] = value


def _inside(node: Any, part: str, where: str) -> Any:
    """What a mapping has at a key, or the entry of a list with that name; a ValueError if there is none."""
    if isinstance(node, list):
        return _entry(node, part, where)
    if not isinstance(node, dict) or part not in node:
        raise ValueError(f"{where} has no {part!r}{did_you_mean(part, node if isinstance(node, dict) else [])}")
    return node[part]


def _entry(entries: list[Any], name: str, where: str) -> dict[str, Any]:
    """The entry of a list with a name; a ValueError if there is none."""
    named = {entry["name"]: entry for entry in entries if isinstance(entry, dict) and "name" in entry}
    if name not in named:
        raise ValueError(f"{where} has no {name!r}{did_you_mean(name, named)} (it has {', '.join(named) or 'nothing'})")
    return named[name]


def _candidates(recipe: Recipe, key: str, dimension: Dimension) -> list[Any]:
    """Values of a dimension that may be the recipe's own: all listed ones, or its number if in the range."""
    if dimension.range is None:
        return dimension.ends()
    own, (low, high) = _number_at(recipe, key), dimension.range
    if own is None or not low <= own <= high or (dimension.int and own != int(own)):
        return []
    steps = (own - low) / (dimension.step or (1 if dimension.int else math.inf))
    on_grid = math.isclose(steps, round(steps), abs_tol=1e-9) or dimension.step is None
    return [int(own) if dimension.int else own] if on_grid else []


def _number_at(recipe: Recipe, key: str) -> float | None:
    """The number of a recipe at a key, or None."""
    root, *rest = key.split(".")
    node: Any = recipe.model_dump(mode="json")[root]
    for place, part in enumerate(rest):
        try:
            if isinstance(node, list):
                node = _entry(node, part, root)
                node = node[_OWN_NUMBER[root]] if place == len(rest) - 1 else node
            else:
                node = _inside(node, part, root) if part in node else node["arguments"][part]
        except (ValueError, KeyError, TypeError):
            return None
    return float(node) if isinstance(node, int | float) and not isinstance(node, bool) else None


def _changes_nothing(recipe: Recipe, key: str, value: Any) -> bool:
    """Whether the recipe with this value is the recipe itself."""
    try:
        return Recipe.model_validate(with_values(recipe, {key: value})) == recipe
    except ValueError:
        return False
