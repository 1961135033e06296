"""The plan of a run within `runtime.max_hours`: what fits, what is cut, and what it changes of the configuration."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.config.experiment import Config, check_config
from foldvote.config.model_relations import all_needed
from foldvote.config.recipe import Recipe
from foldvote.config.run_plan import (
    ModelCost,
    PlannedModel,
    apply_plan,
    fitting_epochs,
    in_words,
    least_seconds,
    needs_of,
    plan_identity,
    plan_path,
    read_plan,
    run_seconds,
)
from foldvote.errors import UserError

PLAN = {"a": PlannedModel(5, 10, 1.5), "b": PlannedModel(0, 4, 0.0)}


def cost(epochs: int = 10, epoch_seconds: float = 10, other_seconds: float = 20, **more: object) -> ModelCost:
    return ModelCost(5, epochs, epoch_seconds, other_seconds, **more)


def asked(folder: Path, sections: dict[str, object] | None = None, **runtime: object) -> Config:
    models = {"a": {"net": "resnet18", "epochs": 10}, "b": {"net": "resnet18", "epochs": 4}}
    values = {"results": str(folder), "data": {"layout": "demo"}, "models": models, "runtime": runtime}
    return check_config(values | (sections or {}))


@st.composite
def runs(draw: st.DrawFn) -> dict[str, ModelCost]:
    """Up to five models; some need another one, and some of these come after it."""
    names = [f"m{number}" for number in range(draw(st.integers(1, 5)))]
    made = {}
    for place, name in enumerate(names):
        before = (draw(st.sampled_from(names[:place])),) if place and draw(st.booleans()) else ()
        seconds = st.floats(0.1, 100)
        made[name] = ModelCost(
            draw(st.integers(1, 6)), draw(st.integers(1, 30)), draw(seconds), draw(seconds), before, before
        )
    return dict(draw(st.permutations(list(made.items()))))


@given(runs(), st.floats(1, 50_000), st.floats(0, 1), st.integers(1, 4))
def test_what_is_planned_fits_and_the_order_decides_what_is_cut(
    costs: dict[str, ModelCost], seconds: float, least: float, at_once: int
) -> None:
    epochs = fitting_epochs(costs, seconds, least, at_once)
    if not epochs:
        assert least_seconds(costs, least, at_once) > seconds
        return
    assert next(iter(costs)) in epochs
    assert [name for name in costs if name in epochs] == list(epochs)
    assert run_seconds(costs, epochs, at_once) <= seconds
    for name, number in epochs.items():
        assert costs[name].least(least) <= number <= costs[name].epochs
        assert set(costs[name].needs) <= set(epochs)
        assert number == costs[name].epochs or run_seconds(costs, epochs | {name: number + 1}, at_once) > seconds
    for place, name in enumerate(costs):  # nothing that comes later takes the place of a model
        if name not in epochs:
            earlier = {other for other in list(costs)[:place] if other in epochs} | all_needed(
                name, lambda one: costs[one].needs
            )
            smallest = {other: costs[other].least(least) for other in epochs | dict.fromkeys(earlier)}
            assert run_seconds(costs, smallest, at_once) > seconds


@given(runs(), st.floats(0, 1), st.integers(1, 4))
def test_the_hours_that_a_refusal_names_are_enough(costs: dict[str, ModelCost], least: float, at_once: int) -> None:
    assert fitting_epochs(costs, least_seconds(costs, least, at_once), least, at_once)


def test_epochs_come_first_then_the_last_models() -> None:
    costs = {name: cost() for name in "abc"}  # 5 x 120 s each
    assert fitting_epochs(costs, 1800, 0.5) == {"a": 10, "b": 10, "c": 10}
    assert fitting_epochs(costs, 1500, 0.5) == {"a": 8, "b": 8, "c": 8}
    assert fitting_epochs(costs, 1570, 0.5) == {"a": 9, "b": 8, "c": 8}
    assert fitting_epochs(costs, 1049, 0.5) == {"a": 8, "b": 8}
    assert fitting_epochs(costs, 1500, 1.0) == {"a": 10, "b": 10}
    assert fitting_epochs(costs, 349, 0.5) == {}


def test_a_smaller_model_may_fit_after_one_that_does_not() -> None:
    assert fitting_epochs({"a": cost(), "b": cost(epoch_seconds=99), "c": cost()}, 1200, 0.5) == {"a": 10, "c": 10}


def test_a_student_comes_with_its_teacher_or_not_at_all() -> None:
    costs = {"student": cost(needs=("teacher",), after=("teacher",)), "teacher": cost(), "other": cost()}
    assert fitting_epochs(costs, 700, 0.5) == {"student": 5, "teacher": 5}
    assert fitting_epochs(costs, 600, 0.5) == {}
    assert fitting_epochs({"other": cost(), **costs}, 900, 0.5) == {"other": 7, "teacher": 7}


def test_side_by_side_ends_with_the_longest_member() -> None:
    alone = {"a": cost(epochs=1, epoch_seconds=100, other_seconds=0)}
    assert run_seconds(alone, {"a": 1}) == 500
    assert run_seconds(alone, {"a": 1}, at_once=5) == pytest.approx(100 + 80)
    after = {"b": cost(epochs=1, epoch_seconds=100, other_seconds=0, after=("a",)), **alone}
    assert run_seconds(after, {"a": 1, "b": 1}, at_once=5) == pytest.approx(200 + 160)


def test_models_of_factors_and_teachers_are_needed() -> None:
    recipes = {
        "mask": Recipe(net="resnet18", factors=["mask"]),
        "age": Recipe(net="resnet18", factors=["age"]),
        "whole": Recipe(net="resnet18"),
        "student": Recipe(net="resnet18", distill={"models": ["whole"]}),
    }
    needs = needs_of(recipes)
    assert set(needs["mask"]) == set(needs["age"]) == {"mask", "age"}
    assert needs["whole"] == () and needs["student"] == ("whole",)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", {"name": "step", "every": 4}])
def test_a_shorter_recipe_keeps_the_shape_of_its_course(schedule: object) -> None:
    whole = Recipe(net="resnet18", epochs=20, warmup_epochs=2, schedule=schedule, pretrained="w.pth", freeze_epochs=5)
    short = whole.with_epochs(10)
    assert (short.epochs, short.warmup_epochs, short.freeze_epochs) == (10, 1, 2)
    assert getattr(short.schedule, "every", 2) == 2
    assert whole.with_epochs(20) is whole
    assert Recipe.model_validate(short.model_dump(mode="json")) == short
    growing = Recipe(
        net="resnet18", epochs=8, progressive={"size": "64x48", "epochs": 3}, mix="mixup", mix_off_epochs=2
    )
    assert growing.with_epochs(4).progressive.epochs == growing.with_epochs(4).mix_off_epochs == 1
    assert growing.with_epochs(2).progressive is None
    probe = Recipe(net="resnet18", epochs=9, pretrained="w.pth", freeze_epochs=9)
    assert probe.with_epochs(1).freeze_epochs == 1


def test_a_plan_is_read_for_the_configuration_that_it_was_made_for(tmp_path: Path) -> None:
    config = asked(tmp_path, max_hours=1)
    assert read_plan(config) is None
    content = {"made_for": plan_identity(config), "models": {name: asdict(one) for name, one in PLAN.items()}}
    plan_path(config).write_text(json.dumps(content))
    assert read_plan(config) == PLAN
    assert read_plan(asked(tmp_path)) is read_plan(asked(tmp_path, max_hours=2)) is None
    assert read_plan(asked(tmp_path, max_hours=1, workers=3)) == PLAN
    for damaged in ("[]", '{"made_for": 1}', json.dumps(content | {"models": [1]})):
        plan_path(config).write_text(damaged)
        if damaged == '{"made_for": 1}':
            assert read_plan(config) is None
        else:
            with pytest.raises(UserError, match=r"plan\.json: is no plan of foldvote; delete it"):
                read_plan(config)


def test_a_plan_changes_models_and_epochs_and_nothing_else(tmp_path: Path) -> None:
    config = asked(tmp_path, max_hours=1)
    planned = apply_plan(config, PLAN)
    assert list(planned.models) == ["a"] and planned.models["a"].epochs == 5
    assert planned.model_dump(exclude={"models"}) == config.model_dump(exclude={"models"})
    assert apply_plan(config, None) is config
    assert list(in_words(config, PLAN)) == ["a: 5 of 10 epochs", "b: left out"]


def test_f176_sections_of_models_that_a_plan_leaves_out_are_left_out_too(tmp_path: Path) -> None:
    weights = {"net": "tf_efficientnet_lite0", "pretrained": "resources/weights/tf_efficientnet_lite0.safetensors"}
    models = {"a": {"net": "resnet18", "epochs": 10}, "b": {**weights, "epochs": 4}}
    sections = {"models": models, "leak_check": {"model": "b"}, "refit": {"models": ["b"]}}
    config = asked(tmp_path, sections, max_hours=1)
    planned = apply_plan(config, PLAN)
    assert (planned.leak_check, planned.leak_model, planned.refit, planned.refitted) == (None, None, None, [])
    told = ["leak_check: is left out, as its model b is", "refit: is left out, as all its models are: b"]
    assert list(in_words(config, PLAN))[2:] == told
    both = asked(tmp_path, sections | {"refit": {"models": ["a", "b"]}, "leak_check": {}}, max_hours=1)
    planned = apply_plan(both, PLAN)
    assert planned.refitted == ["a"] and planned.leak_check is not None and len(list(in_words(both, PLAN))) == 2
