"""How one recipe builds on another."""

from collections.abc import Mapping
from typing import Any

from foldvote.faultlines import nearest


def with_bases(models: Mapping[str, Any], recipes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Resolve the key `base` of every model: what it does not say itself is as its base says.

    Args:
        models: the `models` section as read.
        recipes: the `recipes` section as read: bases that are not trained themselves.

    Returns:
        The models without `base`, and faults as texts `models.NAME...: ...`.
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
        if base not in known:
            faults.append(f"models.{seen[0]}.base: no model or recipe {base!r}{nearest(str(base), known)}")
        elif base in seen:
            faults.append(f"models.{seen[0]}.base: {' -> '.join([*seen, base])} is a circle; break it")
        elif isinstance(under := resolved(base, (*seen, base)), Mapping):
            return {**under, **rest}
        return rest

    return {name: resolved(name, (name,)) for name in models}, faults
