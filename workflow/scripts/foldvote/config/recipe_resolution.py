"""Recipes that inherit from others (`base: NAME`), and recipes that are included from other files (`include`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foldvote.config.other_names import meant_key
from foldvote.config.recipe import Recipe
from foldvote.config.yaml_file import load_yaml
from foldvote.errors import UserError, did_you_mean, raise_all
from foldvote.io.paths import one_path


def with_bases(models: Mapping[str, Any], recipes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Resolve the key `base` of every model: keys that it does not set are taken from its base.

    Args:
        models: the `models` section as read.
        recipes: the `recipes` section as read, which models can inherit from.

    Returns:
        The models without `base`, and the faults, each a text such as "models.NAME.base: ...".
    """
    known = {**recipes, **models}
    faults = [f"models.{name}: recipes has an entry of this name too; rename one" for name in models if name in recipes]

    if faults:
        return dict(models), faults

    def resolved(name: str, seen: tuple[str, ...]) -> Any:
        own = known[name]
        if not isinstance(own, Mapping) or "base" not in own:
            return own
        base, rest = own["base"], {key: value for key, value in own.items() if key != "base"}
        if not isinstance(base, str) or base not in known:
            faults.append(f"models.{seen[0]}.base: no model or recipe {base!r}{did_you_mean(str(base), known)}")
        elif base in seen:
            faults.append(f"models.{seen[0]}.base: {' -> '.join([*seen, base])} is a circle; break it")
        elif isinstance(under := resolved(base, (*seen, base)), Mapping):
            return {**under, **rest}
        return rest

    return {name: resolved(name, (name,)) for name in models}, faults


def with_included(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Add the recipes of included files to those of the configuration.

    Args:
        values: the configuration as read. `include` lists YAML files that have the key `recipes` and no other; their
            paths are relative to the working directory.
        source: the name of the configuration in errors.

    Raises:
        UserError: naming the file, if one is missing, contains anything but recipes, or has a recipe whose name is
            already in use.
    """
    given, recipes = values.get("include"), values.get("recipes") or {}
    if not isinstance(given, list) or not isinstance(recipes, dict) or not all(isinstance(one, str) for one in given):
        return values  # these errors are reported later, together with those of all other keys
    taken_by = {name: source for kind in (recipes, values.get("models")) if isinstance(kind, dict) for name in kind}
    found, faults = dict(recipes), []
    for text in given:
        try:
            path = one_path(text)
        except ValueError as error:
            faults.append(f"{source}: include: {error}")
            continue
        own, wrong = _recipes_of(path, source)
        faults += wrong
        for name, recipe in own.items():
            if name in taken_by:
                faults.append(
                    f"{path}: recipes.{name}: {taken_by[name]} has a recipe or model of this name; rename one"
                )
            taken_by[name], found[name] = path, recipe
    raise_all(faults)
    return values | {"recipes": found}


def _recipes_of(path: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """The recipes of one included file, and what is wrong with it."""
    if not Path(path).exists():
        hint = "the target `tune` makes it, with this line left out until then" if path.endswith("best.yaml") else ""
        return {}, [f"{source}: include: {path} is not there; {hint or 'correct the path'}"]
    try:
        content = load_yaml(path)
    except UserError as error:
        return {}, list(error.faults)
    recipes = content.get("recipes")
    faults = [f"{path}: {key}: an included file holds recipes alone; drop it" for key in content if key != "recipes"]
    if not isinstance(recipes, dict) or not all(isinstance(recipe, dict) for recipe in recipes.values()):
        return {}, [*faults, f"{path}: recipes: must hold recipes by their names"]
    known = [*Recipe.model_fields, "base"]
    faults += [
        f"{path}: recipes.{name}.{key}: unknown key{meant_key(str(key), known)}"
        for name, recipe in recipes.items()
        for key in recipe
        if key not in known
    ]
    return recipes, faults
