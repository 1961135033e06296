"""The recipe of networks that learn from all groups: it decides nothing by validation scores."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from foldvote.config.recipe import Recipe
from foldvote.io.files import read_json, write_json
from foldvote.io.paths import member_of
from foldvote.runtime.job_log import log


def write_refit_recipe(recipe: Recipe, sidecars: Sequence[Path], path: Path) -> None:
    """Write the recipe with the number of epochs that the members of the folds found.

    Args:
        recipe: of the model.
        sidecars: model.json of its members.
        path: the JSON to write: `recipe`, and `epochs_of_folds`, the epochs that each member's weights are of.
    """
    found = {member_of(sidecar)[1]: list(read_json(sidecar)["epochs"]) for sidecar in sidecars}
    refit = refit_recipe(recipe, list(found.values()))
    log(f"{member_of(sidecars[0])[0]}: {refit.epochs} epochs on all groups, as the folds found")
    by_fold = {str(fold): epochs for fold, epochs in sorted(found.items())}
    write_json(path, {"recipe": refit.model_dump(mode="json"), "epochs_of_folds": by_fold})


def refit_recipe(recipe: Recipe, found: Sequence[Sequence[int]]) -> Recipe:
    """The same recipe without choice of an epoch and without an early end.

    Args:
        recipe: of the model.
        found: for each member the epochs, from 1, that its weights are of. The rounded mean over the members is the
            number of epochs; the learning rate runs its whole course within them.
    """
    epochs = max(round(fmean(fmean(own) for own in found)), 1)
    values = recipe.with_epochs(epochs).model_dump(mode="json", exclude={"best_by"})
    values |= {"epoch": "last", "soup": 1, "patience": None, "max_minutes": None}
    # The networks of the folds that found the epochs had a frozen backbone for as long.
    values["freeze_epochs"] = min(recipe.freeze_epochs, epochs)
    return Recipe.model_validate(values)
