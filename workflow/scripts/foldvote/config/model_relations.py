"""What does not fit between the models of one configuration."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from foldvote.config.probe import LeakCheck
from foldvote.config.recipe import Recipe
from foldvote.errors import did_you_mean

Models = Mapping[str, Recipe]


def first_round_faults(models: Models, has_test: bool) -> Iterator[str]:
    """Models that learn from predictions of others which cannot be there before them, or do not fit.

    Args:
        models: the recipes by name.
        has_test: whether there are test images.

    Returns:
        One line for each fault.
    """

    def teachers(name: str) -> Sequence[str]:
        return models[name].learns_from if name in models else ()

    for name, recipe in models.items():
        key = "pseudo" if recipe.pseudo else "distill"
        if recipe.first_round and not has_test:
            what = key if recipe.pseudo else f"{key}.test_images"
            yield f"models.{name}.{what}: there are no test images to learn from; drop it"
        for first in recipe.learns_from:
            place = f"models.{name}.{key}.models: {first!r}"
            if first not in models:
                yield f"{place} is no model{did_you_mean(first, models)}"
            elif recipe.pseudo and models[first].pseudo is not None:
                yield f"{place} is itself of the second round; name models without pseudo"
            elif first == name:
                yield f"{place} is this model itself; name another one, which may have the same recipe"
            elif name in all_needed(first, teachers):
                yield f"{place} learns from {name!r} in its turn; break the circle"
            elif models[first].factors is not None:
                yield f"{place} learns some factors only; name models of whole classes"


def product_faults(models: Models, factor_names: Collection[str]) -> Iterator[str]:
    """Models of single factors that together do not cover every factor exactly once.

    Args:
        models: the recipes by name.
        factor_names: the factors that make up the classes.

    Returns:
        One line for each fault.
    """
    parts = {frozenset(recipe.factors): name for name, recipe in models.items() if recipe.factors}
    if not parts or not frozenset().union(*parts) <= set(factor_names):
        return
    for one, other in combinations(parts, 2):
        if one & other:
            yield (
                f"models.{parts[one]}.factors and models.{parts[other]}.factors share "
                f"{', '.join(sorted(one & other))}; a factor belongs to one kind of models"
            )
    if absent := sorted(set(factor_names).difference(*parts)):
        yield (
            f"models: no model of {', '.join(absent)} stands beside those of some factors ("
            f"{', '.join(sorted(parts.values()))}), so that they make no class; add one with factors: "
            f"[{', '.join(absent)}]"
        )


def leak_check_faults(leak_check: LeakCheck | None, models: Models) -> Iterator[str]:
    """A model that the leak check names and that does not exist or has no pretrained weights.

    Args:
        leak_check: the section; None: no leak check.
        models: the recipes by name.

    Returns:
        One line for each fault.
    """
    name = leak_check.model if leak_check else None
    if name is not None and name not in models:
        yield f"leak_check.model: no model {name!r}{did_you_mean(name, models)}"
    elif name is not None and models[name].weights is None:
        yield f"leak_check.model: {name} has no pretrained weights, and drawn ones see little; name one that has"


def metadata_refusals(target: str, models: Models) -> list[str]:
    """One line for each model that a target cannot use, as it sees metadata.

    Args:
        target: its name, such as bundle.
        models: the recipes by name.
    """
    return [
        f"{target}: models.{name} sees metadata, which {target} has no place for; drop its metadata, or the model"
        for name, recipe in models.items()
        if recipe.metadata is not None
    ]


def all_needed(name: str, needs: Callable[[str], Iterable[str]]) -> set[str]:
    """A model and all others that it needs, directly or through others.

    Args:
        name: of the model.
        needs: the models that one needs directly.
    """
    found, waiting = set[str](), [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += needs(one)
    return found
