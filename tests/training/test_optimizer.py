"""Optimizers by name, and learning rates as a function of the step."""

import inspect
import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from timm.optim import get_optimizer_class, list_optimizers
from torch import nn

from foldvote.config.package_names import listed
from foldvote.config.recipe import Recipe
from foldvote.config.timm_names import optimizer_names
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from foldvote.models.factory import build_model
from foldvote.training.optimizer import backbone_warmup, learning_rate, make_optimizer, plateaus, set_learning_rate
from support.tiny_member import recipe

THREE = LabelSpace(("blue", "green", "red"))
SCHEDULES = ["cosine", {"name": "step", "every": 1, "gamma": 0.5}, "plateau", "one_cycle", "polynomial", "constant"]


def rates(made: Recipe, steps: int = 10, qualities: tuple[float, ...] = ()) -> list[float]:
    return [learning_rate(made, step, steps, qualities) for step in range(made.epochs * steps)]


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def steps_of(optimizer: torch.optim.Optimizer, model: nn.Module, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(16, 6)).square().mean().backward()
        optimizer.step()


def test_the_configuration_knows_timms_own_optimizers() -> None:
    foreign = {name for name in list_optimizers() if name.startswith(("fused", "bnb"))}
    aliases = {"nesterov", "nesterovw"}  # of sgd and sgdw
    assert optimizer_names() == set(list_optimizers()) - foreign - aliases - {"adahessian"}


@pytest.mark.parametrize("name", sorted(optimizer_names()))
def test_every_optimizer_goes_on_from_its_state_to_the_byte(name: str) -> None:
    made = recipe(optimizer=name, lr=0.01)
    whole, half = net(), net()
    optimizer = make_optimizer(made, whole)
    steps_of(optimizer, whole, range(6))
    optimizer = make_optimizer(made, half)
    steps_of(optimizer, half, range(3))
    again, later = net(), None
    again.load_state_dict(half.state_dict())
    later = make_optimizer(made, again)
    later.load_state_dict(optimizer.state_dict())
    steps_of(later, again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(whole.parameters(), net().parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "rmsprop"])
def test_fused_updates_are_the_same_up_to_rounding_and_left_out_where_there_are_none(name: str) -> None:
    models = [net(), net()]
    for model, fused in zip(models, (False, True), strict=True):
        optimizer = make_optimizer(recipe(optimizer=name, lr=0.01), model, fused)
        steps_of(optimizer, model, range(6))
        wanted = fused and name in ("adamw", "sgd")
        assert all(bool(group.get("fused")) == wanted for group in optimizer.param_groups)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adagrad", "adamw", "sgd"])
def test_what_a_fused_update_counts_with_is_on_the_device_of_the_weights(name: str) -> None:
    model = net().to("meta")  # any device but the CPU
    optimizer = make_optimizer(recipe(optimizer=name, lr=0.01), model, fused=True)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert all(state["step"].device.type == "meta" for state in optimizer.state.values() if "step" in state)


def test_an_unknown_optimizer_is_named_with_its_nearest_and_wrong_arguments_are_told() -> None:
    with pytest.raises(ValidationError, match=r"no optimizer 'adamm'; did you mean"):
        recipe(optimizer="adamm")
    with pytest.raises(ValidationError, match=r"sgd has no argument 'momentun'; did you mean 'momentum'"):
        recipe(optimizer="sgd", optimizer_args={"momentun": 0.9})
    for layer_decay, remedy in ((None, "correct optimizer_args"), (0.5, "correct optimizer_args, or drop layer_decay")):
        with pytest.raises(UserError, match=rf"cannot be made for test_resnet.*momentum.*; {remedy}$"):
            wrong = recipe(optimizer="sgd", optimizer_args={"momentum": -1}, layer_decay=layer_decay)
            make_optimizer(wrong, net())


@pytest.mark.parametrize("name", sorted(optimizer_names()))
def test_f181_no_argument_that_is_listed_is_unknown_to_timm(name: str) -> None:
    arguments = listed()["timm"]["optimizers"][name]
    defaults = inspect.signature(get_optimizer_class(name, bind_defaults=False).__init__).parameters
    own = {key: defaults[key].default for key in arguments if key in defaults and key not in ("foreach", "fused")}
    given = {"eps": 1e-8, "betas": (0.9, 0.99), "momentum": 0.9} | own  # timm takes these for all
    make_optimizer(recipe(optimizer=name, optimizer_args=given), net())


def test_layer_decay_slows_the_layers_far_from_the_head() -> None:
    made = recipe(layer_decay=0.5)
    model = build_model(made, THREE, 1)
    optimizer = make_optimizer(made, model)
    set_learning_rate(optimizer, 0.1)
    by_name = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    learnt = {name: by_name[id(parameter)] for name, parameter in model.named_parameters()}
    assert learnt["fc.weight"] == pytest.approx(0.1)
    first, middle = (next(name for name in learnt if name.startswith(part)) for part in ("conv1", "layer2"))
    assert learnt[first] < learnt[middle] < learnt["fc.weight"]


def test_a_head_learns_faster_than_the_rest_by_its_factor() -> None:
    made, plain = recipe(layer_decay=0.5, head_lr_factor=10.0), recipe(layer_decay=0.5)
    learnt = []
    for asked in (made, plain):
        model = build_model(asked, THREE, 1)
        optimizer = make_optimizer(asked, model)
        set_learning_rate(optimizer, 0.1)
        by_name = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        learnt.append({name: by_name[id(parameter)] for name, parameter in model.named_parameters()})
    factors = {name: learnt[0][name] / learnt[1][name] for name in learnt[1]}
    assert {name for name, factor in factors.items() if factor == pytest.approx(10)} == {"fc.weight", "fc.bias"}
    assert sum(factor == 1 for factor in factors.values()) == len(factors) - 2


def test_a_backbone_that_was_frozen_warms_up_when_it_begins_to_learn() -> None:
    made = recipe(freeze_epochs=1, pretrained="given", epochs=4, warmup_epochs=1.0, lr=0.1, layer_decay=0.5)
    model = build_model(made, THREE, 1)
    optimizer, plain = make_optimizer(made, model), make_optimizer(recipe(layer_decay=0.5), model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def rates_at(step: int) -> tuple[float, float]:
        """Learning rates of the classifier, and of the layer before it at the scale of the classifier."""
        set_learning_rate(optimizer, learning_rate(made, step, 10, []), backbone_warmup(made, step, 10))
        own = {names[id(one)]: group for group in optimizer.param_groups for one in group["params"]}
        body = own["layer4.0.conv1.weight"]
        return own["fc.weight"]["lr"], body["lr"] / body["lr_scale"]

    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    assert not any("backbone" in group for group in plain.param_groups)
    assert rates_at(10)[0] == 0.1  # the peak, at which the backbone began before
    assert rates_at(10)[1] == pytest.approx(0.01 * 0.1)
    backbone = [rates_at(step)[1] for step in range(10, 20)]
    assert all(sooner < later for sooner, later in pairwise(backbone[:8]))
    assert rates_at(20)[0] == rates_at(20)[1]


def test_a_second_warm_up_takes_at_most_half_of_what_is_left() -> None:
    made = recipe(freeze_epochs=3, pretrained="given", epochs=4, warmup_epochs=1.0)
    assert [backbone_warmup(made, step, 10) for step in (0, 29, 35, 39)] == [1.0] * 4
    assert backbone_warmup(made, 30, 10) == 0.01
    assert {backbone_warmup(recipe(epochs=4), step, 10) for step in range(40)} == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_are_positive_never_above_the_peak_and_reach_it(schedule: object) -> None:
    made = recipe(schedule=schedule, lr=0.3, epochs=4, warmup_epochs=0.5)
    seen = rates(made)
    assert all(0 < value <= 0.3 + 1e-12 for value in seen)
    assert max(seen) > 0.28


def test_each_schedule_has_its_shape() -> None:
    plain = {"lr": 1.0, "epochs": 4, "warmup_epochs": 0.0}
    cosine = rates(recipe(schedule="cosine", **plain))
    assert cosine[20] == pytest.approx(0.01 + 0.99 / 2)
    assert rates(recipe(schedule={"name": "step", "every": 2, "gamma": 0.5}, **plain)) == [1.0] * 20 + [0.5] * 20
    assert rates(recipe(schedule="polynomial", **plain))[30] == pytest.approx(0.25)
    assert set(rates(recipe(schedule="constant", **plain))) == {1.0}
    cycle = rates(recipe(schedule="one_cycle", **plain | {"warmup_epochs": 1.0}))
    assert cycle[0] == pytest.approx(0.04)
    assert max(range(40), key=cycle.__getitem__) == 12
    warm = rates(recipe(schedule="constant", **plain | {"warmup_epochs": 1.0}))
    assert warm[0] == pytest.approx(0.01)
    assert warm[9] < 1.0 == warm[10]


@pytest.mark.parametrize(("every", "steps"), [(0.1, 10), (0.3, 10), (1.1, 10), (2.2, 50), (0.7, 7), (3, 7)])
def test_a_step_of_the_schedule_comes_with_its_very_first_step(every: float, steps: int) -> None:
    made = recipe(schedule={"name": "step", "every": every, "gamma": 0.5}, epochs=30, warmup_epochs=0, lr=1.0)
    exact = [Fraction(step, steps) // Fraction(str(every)) for step in range(30 * steps)]
    assert rates(made, steps) == [0.5**passed for passed in exact]


def test_a_plateau_lowers_the_rate_each_time_patience_runs_out() -> None:
    seen = [([], 0), ([1, 2, 3], 0), ([3, 2], 0), ([3, 2, 3], 1), ([3, 2, 3, 1, 1], 2), ([3, 2, 3, 4, 4, 4], 2)]
    assert all(plateaus(scores, 2) == count for scores, count in seen)
    made = recipe(schedule={"name": "plateau", "patience": 2, "gamma": 0.5}, lr=1.0, warmup_epochs=0.0, epochs=9)
    assert learning_rate(made, 30, 10, [3, 2, 3]) == 0.5


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 5))
@settings(deadline=None)
def test_a_plateau_never_takes_a_drop_back(scores: list[float], patience: int) -> None:
    counts = [plateaus(scores[:end], patience) for end in range(len(scores) + 1)]
    assert all(later - sooner in (0, 1) for sooner, later in pairwise(counts))
    assert counts[-1] <= math.floor(len(scores) / patience)
