"""The section `tune` of the configuration: what is searched, how, and how long. Knows nothing of Optuna."""

import importlib.util
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from foldvote.config.base import Name, Section
from foldvote.config.search_space import Dimension, space_faults


def _named(value: Any) -> Any:
    """`tpe` or `{name: tpe, n_startup_trials: 20}`."""
    return {"name": value} if isinstance(value, str) else value


# --- samplers, with Optuna's own names for their settings


class Tpe(Section):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

    name: Literal["tpe"]
    n_startup_trials: int = Field(default=10, ge=1)
    """Trials that are drawn at random first."""
    n_ei_candidates: int = Field(default=24, ge=1)
    """Values that are compared for one proposal."""
    multivariate: bool = True
    """Look at keys together and not one by one (Falkner et al., ICML 2018)."""


class Random(Section):
    """Each value by itself, at random: the yardstick of every other sampler."""

    name: Literal["random"]


class Gp(Section):
    """Bayesian optimization by a Gaussian process; for few trials of numeric keys."""

    name: Literal["gp"]
    n_startup_trials: int = Field(default=10, ge=1)
    """Trials that are drawn at random first."""


class CmaEs(Section):
    """Covariance matrix adaptation (Hansen, 2016), for numeric keys; the others are drawn at random."""

    name: Literal["cmaes"]
    n_startup_trials: int = Field(default=1, ge=1)
    """Trials that are drawn at random first."""

    @field_validator("name")
    @classmethod
    def _installed(cls, name: str) -> str:
        if importlib.util.find_spec("cmaes") is None:
            raise ValueError("the package cmaes is not installed; `pip install cmaes`, or use tpe")
        return name


class Qmc(Section):
    """Quasi-random points, which cover the space more evenly than random ones (Bergstra & Bengio, JMLR 2012)."""

    name: Literal["qmc"]


Sampler = Annotated[Tpe | Random | Gp | CmaEs | Qmc, Field(discriminator="name")]


# --- pruners, with Optuna's own names for their settings; a step is an epoch


class NoPruner(Section):
    """Every trial runs to its end."""

    name: Literal["none"]


class Median(Section):
    """A trial ends where its best score so far is worse than the median of the others at that epoch."""

    name: Literal["median"]
    n_startup_trials: int = Field(default=5, ge=0)
    """Completed trials before the first one is pruned."""
    n_warmup_steps: int = Field(default=3, ge=0)
    """Epochs of every trial in which it is not pruned."""


class Percentile(Median):
    """As median, with another share of the others."""

    name: Literal["percentile"]  # type: ignore[assignment]
    percentile: float = Field(default=25.0, ge=0, le=100)
    """Percent of the others that must be worse: 25 keeps a trial that is in the best quarter."""


class SuccessiveHalving(Section):
    """Asynchronous successive halving (Li et al., MLSys 2020)."""

    name: Literal["successive_halving"]
    min_resource: int = Field(default=1, ge=1)
    """Epochs before the first cut."""
    reduction_factor: int = Field(default=4, ge=2)
    """One in so many goes on at a cut."""
    min_early_stopping_rate: int = Field(default=0, ge=0)
    """Cuts that are left out at the beginning."""


class Hyperband(Section):
    """Several successive halvings with different first cuts (Li et al., JMLR 2018)."""

    name: Literal["hyperband"]
    min_resource: int = Field(default=1, ge=1)
    """Epochs before the first cut of the most eager one."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in so many goes on at a cut."""


Pruner = Annotated[NoPruner | Median | Percentile | SuccessiveHalving | Hyperband, Field(discriminator="name")]


# --- the section


def _each_fold_once(folds: list[int]) -> list[int]:
    if len(set(folds)) < len(folds):
        raise ValueError(f"a fold stands twice in {folds}; name each once")
    return folds


class Tune(Section):
    """A search of one model's recipe."""

    model: Name | None = None
    """The model of `models` whose recipe is searched; null: the first."""
    trials: int = Field(default=30, ge=1, le=100_000)
    """Trials in all, those of earlier runs included."""
    workers: int = Field(default=1, ge=1, le=1000)
    """Jobs that search side by side."""
    folds: Annotated[list[int], Field(min_length=1), AfterValidator(_each_fold_once)] | Literal["all"] = "all"
    """Folds that a trial is trained and scored on."""
    score: Literal["macro_f1", "accuracy", "balanced_accuracy", "log_loss"] = "macro_f1"
    """What is searched for: of the out-of-fold predictions of those folds, taken together, after the last epoch."""
    sampler: Annotated[Sampler, BeforeValidator(_named)] = Tpe(name="tpe")
    """How values are proposed: tpe, random, gp, cmaes or qmc."""
    pruner: Annotated[Pruner, BeforeValidator(_named)] = Median(name="median")
    """When a trial ends early: median, percentile, successive_halving, hyperband or none."""
    timeout_hours: float | None = Field(default=None, gt=0)
    """A worker begins no trial after so many hours; null: no limit."""
    space: dict[str, Dimension] = Field(min_length=1)
    """What is searched: keys of the recipe with their values."""

    @field_validator("space")
    @classmethod
    def _sound_space(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        if faults := space_faults(space):
            raise ValueError("\n".join(faults))
        return space
