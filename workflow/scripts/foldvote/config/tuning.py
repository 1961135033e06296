"""The section `tune` of the configuration: what is searched, how, and how long."""

import importlib.util
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from foldvote.config.base import Name, Section, each_fold_once, named
from foldvote.config.metric_names import MetricName
from foldvote.config.search_space import Dimension, space_faults

# --- samplers, with Optuna's own names for their settings


class Tpe(Section):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

    name: Literal["tpe"]
    n_startup_trials: int = Field(default=10, ge=1)
    """Number of first trials with random values."""
    n_ei_candidates: int = Field(default=24, ge=1)
    """Number of candidates that are compared for each proposal."""
    multivariate: bool = True
    """Model the keys jointly instead of independently (Falkner et al., ICML 2018)."""


class Random(Section):
    """Random search: the baseline for every other sampler."""

    name: Literal["random"]


class Gp(Section):
    """Bayesian optimization with a Gaussian process, for few trials and numeric keys."""

    name: Literal["gp"]
    n_startup_trials: int = Field(default=10, ge=1)
    """Number of first trials with random values."""


class CmaEs(Section):
    """Covariance matrix adaptation (Hansen, 2016), for numeric keys; other keys get random values."""

    name: Literal["cmaes"]
    n_startup_trials: int = Field(default=1, ge=1)
    """Number of first trials with random values."""

    @field_validator("name")
    @classmethod
    def _installed(cls, name: str) -> str:
        if importlib.util.find_spec("cmaes") is None:
            raise ValueError("the package cmaes is not installed; `pip install cmaes`, or use tpe")
        return name


class Qmc(Section):
    """Quasi-random points, which cover the space more evenly than random points (Bergstra & Bengio, JMLR 2012)."""

    name: Literal["qmc"]


Sampler = Annotated[Tpe | Random | Gp | CmaEs | Qmc, Field(discriminator="name")]


# --- pruners, with Optuna's own names for their settings; a step is an epoch


class NoPruner(Section):
    """No pruning: every trial runs to its end."""

    name: Literal["none"]


class Median(Section):
    """A trial is stopped when its best score so far is worse than the median of the other trials at that epoch."""

    name: Literal["median"]
    n_startup_trials: int = Field(default=5, ge=0)
    """Number of completed trials before any trial is pruned."""
    n_warmup_steps: int = Field(default=3, ge=0)
    """Number of first epochs in which a trial is not pruned."""


class Percentile(Median):
    """Like median, but with a percentile of your choice."""

    name: Literal["percentile"]  # type: ignore[assignment]
    percentile: float = Field(default=25.0, ge=0, le=100)
    """A trial is stopped unless its best score so far is among the best so many percent: 25 keeps the best quarter."""


class SuccessiveHalving(Section):
    """Asynchronous successive halving (Li et al., MLSys 2020)."""

    name: Literal["successive_halving"]
    min_resource: int = Field(default=1, ge=1)
    """Number of epochs before trials are compared for the first time."""
    reduction_factor: int = Field(default=4, ge=2)
    """At each comparison, one of this many trials goes on."""
    min_early_stopping_rate: int = Field(default=0, ge=0)
    """Number of first comparisons that are skipped."""


class Hyperband(Section):
    """Several successive halvings that begin at different epochs (Li et al., JMLR 2018)."""

    name: Literal["hyperband"]
    min_resource: int = Field(default=1, ge=1)
    """Number of epochs before the first comparison of the earliest halving."""
    reduction_factor: int = Field(default=3, ge=2)
    """At each comparison, one of this many trials goes on."""


Pruner = Annotated[NoPruner | Median | Percentile | SuccessiveHalving | Hyperband, Field(discriminator="name")]


# --- the section


class Tune(Section):
    """A hyperparameter search of one model's recipe."""

    model: Name | None = None
    """The model of `models` whose recipe is searched; null: the first."""
    trials: int = Field(default=30, ge=1, le=100_000)
    """Total number of trials, including those of earlier runs."""
    workers: int = Field(default=1, ge=1, le=1000)
    """Number of jobs that search in parallel."""
    folds: Annotated[list[int], Field(min_length=1), AfterValidator(each_fold_once)] | Literal["all"] = "all"
    """The folds on which each trial is trained and scored."""
    score: MetricName = "macro_f1"
    """The score that is optimized, of the out-of-fold predictions of those folds together, after the last epoch; by
    default that of `metric`."""
    sampler: Annotated[Sampler, BeforeValidator(named)] = Tpe(name="tpe")
    """How values are chosen: tpe, random, gp, cmaes or qmc."""
    pruner: Annotated[Pruner, BeforeValidator(named)] = Median(name="median")
    """When a trial is stopped early: median, percentile, successive_halving, hyperband or none."""
    timeout_hours: float | None = Field(default=None, gt=0)
    """A worker starts no trial after this many hours; null: no limit."""
    space: dict[str, Dimension] = Field(min_length=1)
    """The search space: keys of the recipe and their values."""

    @field_validator("space")
    @classmethod
    def _sound_space(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        if faults := space_faults(space):
            raise ValueError("\n".join(faults))
        return space
