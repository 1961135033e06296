"""Classes, the factors that they are made up of, and the codes and names of both."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from foldvote.config.base import MOST_CLASSES, joined_levels_fault
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError
from foldvote.io.files import read_json, write_json

LABEL = "label"  # the field that names the class where the class is not made up of factors
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)")


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a task.

    Attributes:
        classes: class names in the order of their codes.
        factors: for each factor its levels in order; empty when classes are not made up of factors. Otherwise the
            classes are the product of the factors' levels, the last factor varying fastest.
    """

    classes: tuple[str, ...]
    factors: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def code(self, levels: dict[str, str]) -> int:
        """The code of the class with the given level of each factor; the last factor varies fastest."""
        code = 0
        for name, known in self.factors.items():
            code = code * len(known) + known.index(levels[name])
        return code

    def level_codes(self, factor: str) -> np.ndarray:
        """Level code of `factor` for every class: int64 array of shape (classes,)."""
        names = list(self.factors)
        shape = tuple(len(self.factors[name]) for name in names)
        return np.unravel_index(np.arange(len(self.classes)), shape)[names.index(factor)]

    def restricted(self, factors: Sequence[str]) -> "tuple[LabelSpace, np.ndarray]":
        """The label space of some of the factors, in the order of this one.

        Returns:
            The smaller label space, and for each class of this one its code there: int64 array of shape (classes,).

        Raises:
            UserError: if a factor is not known, or none is named.
        """
        unknown = [name for name in factors if name not in self.factors]
        if unknown or not factors:
            known = ", ".join(self.factors) or "none"
            raise UserError(f"factors: no factor {', '.join(unknown) or 'is named'}; the classes' factors are: {known}")
        kept = {name: levels for name, levels in self.factors.items() if name in factors}
        if len(kept) == len(self.factors):
            return self, np.arange(len(self.classes))
        codes = np.zeros(len(self.classes), np.int64)
        for name, levels in kept.items():
            codes = codes * len(levels) + self.level_codes(name)
        return factor_label_space(kept), codes

    def as_json(self) -> dict[str, Any]:
        """The content of `data/classes.json`."""
        factors = {
            name: {"levels": list(levels), "of_class": self.level_codes(name).tolist()}
            for name, levels in self.factors.items()
        }
        return {"classes": list(self.classes), "factors": factors, "factor_order": list(self.factors)}


def factor_label_space(factors: dict[str, tuple[str, ...]]) -> LabelSpace:
    """The label space whose classes are the product of all levels, named `level-level-level`.

    Raises:
        UserError: if two classes get the same name, or there are more than MOST_CLASSES.
    """
    if fault := joined_levels_fault(factors):
        raise UserError(f"data.factors: {fault}")
    names = tuple("-".join(levels) for levels in itertools.product(*factors.values()))
    return LabelSpace(names, dict(factors))


def is_number(name: str) -> bool:
    """Whether a class name is a number: `7`, `-1`, `2.5`, `007`; not `1e5` or `1-2`."""
    return _NUMBER.fullmatch(name) is not None


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in the order of their codes: by value if each is a number (2 before 10), otherwise as texts."""
    texts = sorted(names)
    return sorted(texts, key=Decimal) if all(map(is_number, texts)) else texts


def named_label_space(classes: Sequence[str] | None, found: Iterable[str]) -> LabelSpace:
    """The label space of plain class names.

    Args:
        classes: the names in the order of their codes; None: those of `found`, see `in_order`.
        found: class names of the training rows.

    Raises:
        UserError: if there are fewer than two classes, or more than MOST_CLASSES.
    """
    names = tuple(classes or in_order(found))
    if len(names) < 2:
        raise UserError(f"data: found {len(names)} class(es) {sorted(found)}; a classifier needs at least two")
    if len(names) > MOST_CLASSES:
        raise UserError(f"data: found {len(names):,} classes, more than {MOST_CLASSES:,}; is the label an id?")
    return LabelSpace(names)


def label_space_from_json(content: dict[str, Any]) -> LabelSpace:
    """The label space that `LabelSpace.as_json` wrote."""
    factors = {name: tuple(content["factors"][name]["levels"]) for name in content["factor_order"]}
    return LabelSpace(tuple(content["classes"]), factors)


def write_label_space(label_space: LabelSpace, path: str | Path) -> None:
    """Write `data/classes.json`."""
    write_json(path, label_space.as_json())


def read_label_space(path: str | Path) -> LabelSpace:
    """Read `data/classes.json`."""
    return label_space_from_json(read_json(path))


def known_classes(recipe: Recipe, label_space: LabelSpace) -> tuple[LabelSpace, np.ndarray]:
    """The label space of a recipe's model, and for each class of the task its code there: int64 (classes,)."""
    return (
        label_space.restricted(recipe.factors) if recipe.factors else (label_space, np.arange(len(label_space.classes)))
    )
