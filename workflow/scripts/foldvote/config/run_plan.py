"""The plan of a run that may take only so long (`runtime.max_hours`): which models it trains, with how many epochs.

Every fold of a model is trained or none: without one of them, the out-of-fold predictions would have holes.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldvote.config.experiment import Config
from foldvote.config.model_relations import all_needed
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError
from foldvote.io.files import canonical, read_json, sha256_bytes

KEPT_BACK = 0.1  # share of the time that no plan uses: what was measured varies, and members that share a machine


@dataclass(frozen=True)
class ModelCost:
    """What a model costs.

    Attributes:
        members: number of its members, one per fold.
        epochs: of each member, as the recipe asks.
        epoch_seconds: seconds of an epoch of a member, validation included.
        other_seconds: all other seconds of a member: the starts of its jobs, and its predictions.
        needs: models without which it cannot be in the vote.
        after: those of them that must be trained before it.
    """

    members: int
    epochs: int
    epoch_seconds: float
    other_seconds: float
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def member_seconds(self, epochs: int) -> float:
        """Seconds of one member that is trained for some epochs and predicts."""
        return epochs * self.epoch_seconds + self.other_seconds

    def least(self, share: float) -> int:
        """The smallest number of epochs, from 1, that is at least a share of those that the recipe asks for."""
        return max(math.ceil(round(share * self.epochs, 6)), 1)


Costs = Mapping[str, ModelCost]


def fitting_epochs(costs: Costs, seconds: float, least: float, at_once: int = 1) -> dict[str, int]:
    """Decide how many epochs of which models fit into a time.

    Models are kept in their order, each if it fits beside those before it with the smallest share of its epochs; a
    smaller one may still fit after one that does not. The kept ones then get the same share of their epochs, as
    large as fits; time that is then left goes to the first one that it is an epoch of.

    Args:
        costs: by model, the most important one first.
        seconds: the time.
        least: smallest share of its epochs that a model is trained for.
        at_once: number of members that are trained side by side.

    Returns:
        By kept model, in the order of `costs`, the epochs of its members; empty if not even the first one fits.
    """

    def fits(epochs: Mapping[str, int]) -> bool:
        return run_seconds(costs, epochs, at_once) <= seconds

    kept: dict[str, int] = {}
    for name in costs:
        wanted = all_needed(name, lambda other: costs[other].needs) | set(kept)
        tried = {other: one.least(least) for other, one in costs.items() if other in wanted}
        if fits(tried):
            kept = tried
        elif not kept:
            return {}
    shares = sorted({epochs / costs[name].epochs for name in kept for epochs in range(costs[name].epochs + 1)})

    def with_share(share: float) -> dict[str, int]:
        return {name: max(math.floor(share * costs[name].epochs + 1e-6), kept[name]) for name in kept}

    fitting = bisect_right(shares, seconds, key=lambda share: run_seconds(costs, with_share(share), at_once))
    epochs = with_share(shares[fitting - 1])
    while more := next(filter(fits, _with_one_more(costs, epochs)), None):
        epochs = more
    return epochs


def run_seconds(costs: Costs, epochs: Mapping[str, int], at_once: int = 1) -> float:
    """The most seconds that the members of some models take, in whatever order they are begun (Graham, 1969).

    Args:
        costs: by model.
        epochs: by model that is trained the epochs of its members.
        at_once: number of members that are trained side by side.
    """
    whole = sum(costs[name].members * costs[name].member_seconds(number) for name, number in epochs.items())
    longest = max(_chain_seconds(costs, epochs, name) for name in epochs)
    return whole / at_once + longest * (1 - 1 / at_once)


def least_seconds(costs: Costs, least: float, at_once: int = 1) -> float:
    """Seconds of the smallest run: the first model, with what it needs, each with the smallest share of its epochs."""
    first = all_needed(next(iter(costs)), lambda other: costs[other].needs)
    return run_seconds(costs, {name: one.least(least) for name, one in costs.items() if name in first}, at_once)


def needs_of(models: Mapping[str, Recipe]) -> dict[str, tuple[str, ...]]:
    """By model the others without which it cannot be in the vote: its teachers, and the models of other factors."""
    parts = [name for name, recipe in models.items() if recipe.factors]
    return {
        name: tuple(dict.fromkeys([*recipe.learns_from, *(other for other in parts if recipe.factors)]))
        for name, recipe in models.items()
    }


def _with_one_more(costs: Costs, epochs: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The same epochs with one more of one model, in the order of the models."""
    return (dict(epochs) | {name: number + 1} for name, number in epochs.items() if number < costs[name].epochs)


def _chain_seconds(costs: Costs, epochs: Mapping[str, int], name: str) -> float:
    """Seconds from the start of the first member that one member waits for to its own end."""
    waits = max((_chain_seconds(costs, epochs, other) for other in costs[name].after), default=0.0)
    return costs[name].member_seconds(epochs[name]) + waits


# --- the plan in a file


@dataclass(frozen=True)
class PlannedModel:
    """What a plan leaves of one model.

    Attributes:
        epochs: of each member; 0 if it is left out.
        asked_epochs: as the recipe asks.
        minutes: a member ends its training after as many, even if epochs remain: its share of all the time there is.
    """

    epochs: int
    asked_epochs: int
    minutes: float

    @property
    def in_words(self) -> str:
        """Such as `12 of 20 epochs`."""
        return f"{self.epochs} of {self.asked_epochs} epochs" if self.epochs else "left out"


Plan = Mapping[str, PlannedModel]


def plan_path(config: Config) -> Path:
    """Where the plan of a run is."""
    return Path(config.results, "plan.json")


def plan_identity(config: Config) -> str:
    """A digest of what a plan is made for. Data and machine are not in it: after a change of these, delete the plan."""
    planned = {
        "models": {name: recipe.definite.model_dump(mode="json") for name, recipe in config.models.items()},
        "order": list(config.models),
        "folds": config.folds.count,
        "views": config.predict.views,
        "max_hours": config.runtime.max_hours,
        "least_epochs": config.runtime.least_epochs,
    }
    return sha256_bytes(canonical(planned).encode())


def read_plan(config: Config) -> Plan | None:
    """The plan of a run by model.

    Args:
        config: as the user wrote it.

    Returns:
        None without `runtime.max_hours`, without a plan, or if the plan is of other models or hours.

    Raises:
        UserError: if the file is damaged.
    """
    path = plan_path(config)
    if config.runtime.max_hours is None or not path.is_file():
        return None
    content = read_json(path)
    try:
        if content["made_for"] != plan_identity(config):
            return None
        keys = ("epochs", "asked_epochs", "minutes")
        return {name: PlannedModel(*(one[key] for key in keys)) for name, one in content["models"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no plan of foldvote; delete it, and the next run plans anew") from error


def apply_plan(config: Config, plan: Plan | None) -> Config:
    """The configuration of what fits: the kept models, with their epochs.

    Args:
        config: as the user wrote it.
        plan: of this configuration; None: everything stays.
    """
    if plan is None:
        return config
    models = {
        name: recipe.with_epochs(plan[name].epochs) for name, recipe in config.models.items() if plan[name].epochs
    }
    changes: dict[str, Any] = {"models": models} | dict.fromkeys(sections_left_out(config, plan))
    if "refit" not in changes and config.refit is not None and config.refit.models != "all":
        changes["refit"] = config.refit.model_copy(update={"models": config.refit.named(models)})
    if config.searched_model not in models:
        changes["tune"] = None  # a search is a run of its own
    return config.model_copy(update=changes)


def sections_left_out(config: Config, plan: Plan) -> dict[str, str]:
    """The sections that name only models which a plan leaves out, each with a line that says so."""
    left, found = [name for name, one in plan.items() if one.epochs], {}
    if config.leak_check is not None and config.leak_check.model not in (None, *left):
        found["leak_check"] = f"leak_check: is left out, as its model {config.leak_check.model} is"
    if config.refit is not None and not config.refit.named(left):
        found["refit"] = f"refit: is left out, as all its models are: {', '.join(config.refit.models)}"
    return found


def in_words(config: Config, plan: Plan) -> Iterable[str]:
    """One line for each model of which something is cut, and for each section that is left out with its models.

    Args:
        config: as the user wrote it.
        plan: of this configuration.
    """
    cut = [f"{name}: {one.in_words}" for name, one in plan.items() if one.epochs < one.asked_epochs]
    return [*cut, *sections_left_out(config, plan).values()]
