"""Whether the pretrained weights of recipes are on this machine, and are those that the lock pins."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from foldvote.config.named_weights import (
    LOCK,
    UNPACKED,
    expected_digest,
    local_weights,
    missing_weights,
    pinned_digest,
    read_lock,
    unknown_tag,
    weights_path,
)
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError, raise_all


def weights_faults(recipe: Recipe, fetch: str) -> Iterator[str]:
    """What is wrong with the pretrained weights of a recipe, as far as it shows without reading them.

    Args:
        recipe: the recipe.
        fetch: the command that downloads the weights of its configuration.
    """
    file, name = recipe.pretrained_file, recipe.named_weights
    if file is not None and file not in UNPACKED and not Path(file).exists():
        yield f"{file} is not there; {unknown_tag(recipe.net, file)}"
    if name is None:
        return
    path, pin = local_weights(name), read_lock().get(name)
    if path is None:
        packaged = f"resources/weights/{recipe.net.split('.')[0]}.safetensors"
        offline = f"; or set {packaged}, which comes out of a Python package" if packaged in UNPACKED else ""
        yield f"{missing_weights(name, fetch)}{offline}"
    elif pin is not None and path.stat().st_size != pin.size:
        yield f"{path} is not the file that {LOCK} pins, but one of another size; delete it and run `{fetch}`"


def check_digests(recipes: Iterable[Recipe]) -> list[str]:
    """Compare weights that are given by name with the lock; this reads them.

    Args:
        recipes: the recipes.

    Returns:
        One line for each set of weights that nothing pins.

    Raises:
        UserError: naming every file with another SHA-256.
    """
    pins, faults, notes = read_lock(), list[str](), []
    for name in sorted({name for recipe in recipes if (name := recipe.named_weights)}):
        path = weights_path(name)
        try:
            pinned_digest(path, expected_digest(name))
        except UserError as error:
            faults += error.faults
        if name not in pins:
            notes.append(f"the weights {name} come from {path}, and nothing pins them; `foldvote fetch` does")
    raise_all(faults)
    return notes
