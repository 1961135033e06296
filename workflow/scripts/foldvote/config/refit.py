"""Networks that are trained on all groups beside the folds, and the learning curve that forecasts their score."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from foldvote.config.base import Name, Section, different, each_fold_once
from foldvote.config.recipe import Recipe
from foldvote.errors import did_you_mean

_NEAREST = 0.1  # two shares, and the last one and 1: ten groups are then enough to tell them apart


def _a_curve(shares: list[float]) -> list[float]:
    """Shares that rise, or a ValueError."""
    ends = [0.0, *shares, 1.0]
    if any(after - before < _NEAREST - 1e-9 for before, after in pairwise(ends)):
        raise ValueError(f"{shares} must rise from {_NEAREST} to {1 - _NEAREST} by {_NEAREST} or more")
    if len(shares) == 1:
        raise ValueError(f"{shares} and all groups are two points, which no line can miss; give two shares or more")
    return shares


class Refit(Section):
    """Networks that are trained on all groups, without validation, beside those of the folds."""

    models: Annotated[list[Name], Field(min_length=1), AfterValidator(different)] | Literal["all"] = "all"
    """The models that are trained again on all groups."""
    seeds: int = Field(default=5, ge=1, le=100)
    """Number of networks of each of them; they differ by their seeds alone."""
    curve: Annotated[list[float], AfterValidator(_a_curve)] = Field(default=[0.5, 0.65, 0.8])
    """Shares of each fold's training groups on which further networks are trained: what all groups are worth is
    forecast from their scores. []: no forecast, and no such networks."""
    curve_folds: Annotated[list[int], Field(min_length=1), AfterValidator(each_fold_once)] | Literal["all"] = "all"
    """The folds of the first repeat that the curve is measured on."""

    def named(self, models: Iterable[str]) -> list[str]:
        """Those of the models that are trained again, sorted."""
        return sorted(name for name in models if self.models == "all" or name in self.models)

    def folds_of(self, k: int) -> list[int]:
        """The folds that the curve is measured on, of `k` in the first repeat; none without a curve."""
        if not self.curve:
            return []
        return list(range(k)) if self.curve_folds == "all" else sorted(self.curve_folds)


def refit_faults(refit: Refit, models: Mapping[str, Recipe], factors: Iterable[str], k: int) -> Iterator[str]:
    """One line for each model or fold that does not exist, and each model that cannot learn without validation.

    Args:
        refit: the section.
        models: the recipes of all models.
        factors: the factors that make up the classes.
        k: number of folds of the first repeat.
    """
    named, instead = [] if refit.models == "all" else refit.models, "leave it out: refit.models: [NAMES]"
    for name in named:
        if name not in models:
            yield f"refit.models: no model {name!r}{did_you_mean(name, models)}"
    chosen = {name: models[name] for name in refit.named(models)}
    for name, recipe in chosen.items():
        if recipe.kind == "probe":
            yield f"refit.models: {name} is a probe (kind: probe), which is fitted fold by fold only; {instead}"
        if recipe.pseudo is not None:
            yield f"refit.models: {name} learns from pseudo-labels, which belong to a fold; {instead}"
        if recipe.distill is not None:
            yield f"refit.models: {name} learns from teachers (distill), which belong to a fold; {instead}"
        if recipe.schedule.name == "plateau":
            yield (
                f"refit.models: {name} lowers its learning rate by validation scores (schedule: plateau), and a refit "
                f"has none; give it another schedule, or {instead}"
            )
    learnt = [recipe.factors for recipe in chosen.values() if recipe.factors]
    if learnt and (absent := sorted(set(factors).difference(*learnt))):
        yield f"refit.models: has models of some factors and none of {', '.join(absent)}; add one, or say all"
    if absent_folds := [fold for fold in refit.folds_of(k) if not 0 <= fold < k]:
        told = ", ".join(map(str, absent_folds))
        yield f"refit.curve_folds: there is no fold {told} in the first repeat; the last one is {k - 1}"
