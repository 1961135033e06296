"""Optuna's samplers, pruners and distributions, made from the configuration."""

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from foldvote.config.search_space import Dimension, is_active, label, ordered
from foldvote.config.tuning import Pruner, Sampler

_SEEDS = 2**32  # number of seeds that Optuna accepts

optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(asked: optuna.Trial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Let the sampler choose the values of a trial.

    Args:
        asked: the trial.
        space: the searched keys. A key whose condition is not met by the other values is left out.

    Returns:
        The values by key.
    """
    values: dict[str, Any] = {}
    for key in ordered(space):
        dimension = space[key]
        if not is_active(dimension, values):
            continue
        if dimension.choice is not None:
            known = {label(value): value for value in dimension.choice}
            values[key] = known[asked.suggest_categorical(key, list(known))]
        elif dimension.int is not None:
            step = int(dimension.step or 1)
            values[key] = asked.suggest_int(key, *dimension.int, step=step, log=dimension.log)
        elif dimension.float is not None:
            values[key] = asked.suggest_float(key, *dimension.float, step=dimension.step, log=dimension.log)
    return values


def distribution(dimension: Dimension) -> CategoricalDistribution | IntDistribution | FloatDistribution:
    """The Optuna distribution of a dimension of the search space."""
    if dimension.choice is not None:
        return CategoricalDistribution([label(value) for value in dimension.choice])
    if dimension.int is not None:
        return IntDistribution(*dimension.int, log=dimension.log, step=int(dimension.step or 1))
    low, high = dimension.range or (0.0, 1.0)
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)


def make_sampler(settings: Sampler, seed: int, series: int, *, alone: bool) -> BaseSampler:
    """Make a sampler.

    Args:
        settings: the `sampler` section of the configuration.
        seed: seed of its random draws.
        series: seed of a sequence of points (qmc), which must be the same for all trials of a study: the study counts
            how many points were taken.
        alone: whether this is the only worker; otherwise TPE avoids the values that other workers are trying.
    """
    seed, series = seed % _SEEDS, series % _SEEDS
    own = settings.model_dump(exclude={"name"}) | {"seed": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # it would be repeated for each trial
        match settings.name:
            case "tpe":
                return TPESampler(group=own["multivariate"], constant_liar=not alone, **own)
            case "gp":
                return GPSampler(**own)
            case "cmaes":
                return CmaEsSampler(warn_independent_sampling=False, **own)
            case "qmc":
                others = RandomSampler(seed=seed)  # for names, and keys with a condition
                return QMCSampler(
                    scramble=True, seed=series, independent_sampler=others, warn_independent_sampling=False
                )
            case _:
                return RandomSampler(**own)


def make_pruner(settings: Pruner, steps: int) -> BasePruner:
    """Make a pruner.

    Args:
        settings: the `pruner` section of the configuration.
        steps: the largest number of times that a trial is compared with others.
    """
    own = settings.model_dump(exclude={"name"})
    match settings.name:
        case "median":
            return MedianPruner(**own)
        case "percentile":
            return PercentilePruner(**own)
        case "successive_halving":
            return SuccessiveHalvingPruner(**own)
        case "hyperband":
            return HyperbandPruner(max_resource=steps, **own)
        case _:
            return NopPruner()
