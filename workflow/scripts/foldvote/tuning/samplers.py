"""How values are proposed and trials ended early: Optuna's samplers, pruners and distributions by our settings."""

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

_SEEDS = 2**32  # that Optuna takes

optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(asked: optuna.Trial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Let the sampler choose a value of each key that is searched beside the others, in the order of conditions."""
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
    """A dimension as Optuna has it."""
    if dimension.choice is not None:
        return CategoricalDistribution([label(value) for value in dimension.choice])
    if dimension.int is not None:
        return IntDistribution(*dimension.int, log=dimension.log, step=int(dimension.step or 1))
    low, high = dimension.range or (0.0, 1.0)
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)


def make_sampler(settings: Sampler, seed: int, *, alone: bool) -> BaseSampler:
    """A sampler by its settings.

    Args:
        settings: from the configuration.
        seed: of its draws.
        alone: whether no other worker searches beside it; else TPE keeps away from what others are trying.
    """
    own = settings.model_dump(exclude={"name"}) | {"seed": seed % _SEEDS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # said anew for each trial
        match settings.name:
            case "tpe":
                return TPESampler(group=own["multivariate"], constant_liar=not alone, **own)
            case "gp":
                return GPSampler(**own)
            case "cmaes":
                return CmaEsSampler(warn_independent_sampling=False, **own)
            case "qmc":
                return QMCSampler(scramble=True, warn_independent_sampling=False, **own)
            case _:
                return RandomSampler(**own)


def make_pruner(settings: Pruner, steps: int) -> BasePruner:
    """A pruner by its settings; `steps` is how often a trial is compared at most."""
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
