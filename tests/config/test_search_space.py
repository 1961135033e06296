"""The space of a search: what it may name, and what becomes of a recipe with its values."""

from itertools import product

import pytest

from foldvote.config.experiment import Config, check_config
from foldvote.config.recipe import Recipe
from foldvote.config.search_space import Dimension, assignments, is_active, ordered, own_values, with_values
from foldvote.errors import UserError

MODEL = {"net": "test_resnet", "size": "32x24", "loss": "focal", "augment": {"hflip": 0.5, "crop": 0.1}, "epochs": 4}
CONFIG = {"data": {"layout": "demo"}, "folds": {"k": 3}, "models": {"tiny": MODEL}}


def config(space: dict, **changes: object) -> Config:
    return check_config(CONFIG | {"tune": {"space": space, **changes}}, "c.yaml")


def faults(space: dict, **changes: object) -> list[str]:
    with pytest.raises(UserError) as error:
        config(space, **changes)
    return list(error.value.faults)


def tried(key: str, value: object, **more: object) -> Recipe:
    return Recipe.model_validate(with_values(Recipe.model_validate(MODEL), {key: value, **more}))


def test_a_value_reaches_its_place_in_the_recipe() -> None:
    assert tried("lr", 0.5).lr == 0.5
    assert tried("optimizer_args.momentum", 0.9).optimizer_args == {"momentum": 0.9}
    assert [(step.name, step.strength) for step in tried("augment.crop", 0.3).augment] == [
        ("hflip", 0.5),
        ("crop", 0.3),
    ]
    assert tried("loss.focal.gamma", 3).loss[0].gamma == 3
    assert tried("loss.focal", 0.4).loss[0].weight == 0.4
    assert tried("schedule.floor", 0.2).schedule.floor == 0.2
    assert tried("labels.soft_years", 2).labels.soft_years == 2
    clahe = tried("augment.CLAHE.clip_limit", 3, augment=[{"CLAHE": {"clip_limit": 2}}]).augment
    assert clahe[0].arguments == {"clip_limit": 3}


def test_a_part_is_put_into_the_whole_that_is_searched_beside_it() -> None:
    both = tried("loss.soft_f1.weight", 0.7, loss=["cross_entropy", "soft_f1"])
    assert [(term.name, term.weight) for term in both.loss] == [("cross_entropy", 1.0), ("soft_f1", 0.7)]


def test_conditions_say_what_is_searched_beside_what() -> None:
    space = {
        "optimizer_args.momentum": Dimension(float=(0.5, 0.9), when={"optimizer": "sgd"}),
        "optimizer": Dimension(choice=["adamw", "sgd"]),
    }
    assert ordered(space) == ["optimizer", "optimizer_args.momentum"]
    assert not is_active(space["optimizer_args.momentum"], {"optimizer": "adamw"})
    assert assignments(["optimizer_args.momentum"], space) == [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "optimizer_args.momentum": 0.5},
        {"optimizer": "sgd", "optimizer_args.momentum": 0.9},
    ]


def test_the_recipe_as_it_stands_is_found_in_the_space_or_lies_outside() -> None:
    recipe = Recipe.model_validate(MODEL)
    space = {
        "lr": Dimension(float=(1e-4, 1e-2), log=True),
        "loss": Dimension(choice=["cross_entropy", {"name": "focal", "gamma": 2.0}]),
        "loss.focal.gamma": Dimension(float=(0, 5), when={"loss": {"name": "focal", "gamma": 2.0}}),
        "epochs": Dimension(int=(2, 8), step=2),
        "augment.hflip": Dimension(float=(0, 1)),
        "ema": Dimension(choice=[None, 0.9]),
    }
    assert own_values(recipe, space) == {
        "lr": 1e-3,
        "loss": {"name": "focal", "gamma": 2.0},
        "loss.focal.gamma": 2.0,
        "epochs": 4,
        "augment.hflip": 0.5,
        "ema": None,
    }
    for outside in ({"lr": Dimension(float=(0.1, 1))}, {"epochs": Dimension(int=(3, 7), step=2)}):
        assert own_values(recipe, space | outside) is None
    assert own_values(recipe, {"loss": Dimension(choice=["ldam"])}) is None


def test_f29_f31_all_that_is_wrong_with_a_space_is_told_at_once() -> None:
    assert faults({"lrr": {"float": [0, 1]}, "vote.use": {"choice": ["mean"]}, "patience": {"int": [1, 3]}}) == [
        "c.yaml: tune.space: lrr: is no key of a recipe, and only recipes are searched; did you mean 'lr'?",
        "c.yaml: tune.space: vote.use: is no key of a recipe, and only recipes are searched",
        "c.yaml: tune.space: patience: cannot be searched: trials are scored on their last epoch, which nothing has "
        "chosen; drop it",
    ]
    told = "\n".join(
        faults(
            {
                "lr": {"float": [1, 1000]},
                "net": {"choice": ["resnet1O"]},
                "loss.ldam.margin": {"float": [0.1, 1]},
                "schedule.flor": {"float": [0, 1]},
                "heads": {"choice": ["joint", {"agee": "ordinal"}]},
                "warmup_epochs": {"float": [0, 12]},
            }
        )
    )
    assert "tune.space.lr at 1000.0: lr: must be less than or equal to 100 (it is 1000.0)" in told
    assert "tune.space.net at resnet1O: net: timm knows no net 'resnet1O'; did you mean 'resnet18'?" in told
    assert "tune.space.loss.ldam.margin: loss has no 'ldam' (it has focal)" in told
    assert "schedule.flor: unknown key; did you mean 'floor'?" in told
    assert "heads: no factor 'agee'; did you mean 'age'?" in told
    assert "tune.space.warmup_epochs at 12.0: warmup_epochs 12.0 leaves nothing of 4 epochs" in told


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"lr": {"float": [2, 1]}}, "must be [low, high] with low below high"),
        ({"lr": {"float": [0, 1], "log": True}}, "a logarithmic scale begins above 0"),
        ({"lr": {"float": [0, 1], "int": [0, 1]}}, "needs one of float, int, choice, has 2"),
        ({"lr": {}}, "needs one of float, int, choice"),
        ({"lr": {"choice": [1, "1"]}}, "1 stands twice"),
        ({"epochs": {"int": [1, 6], "step": 2}}, "is no whole number of steps of 2 above 1"),
        ({"lr": {"float": [0.1, 1], "when": {"optimiser": "sgd"}}}, "'optimiser' is not searched"),
        ({"lr": {"float": [0.1, 1], "when": {"ema": 1}}, "ema": {"float": [0.1, 0.9]}}, "has no list of values"),
        ({"lr": {"float": [0.1, 1], "when": {"net": "b"}}, "net": {"choice": ["a"]}}, "net is never 'b'"),
        (
            {"lr": {"choice": [1], "when": {"ema": 0.5}}, "ema": {"choice": [0.5], "when": {"lr": 1}}},
            "is a circle; break it",
        ),
    ],
)
def test_f31_a_dimension_that_cannot_be_searched_is_refused(space: dict, said: str) -> None:
    assert said in "\n".join(faults(space))


def test_f29_names_of_models_folds_samplers_and_pruners_are_checked() -> None:
    space = {"lr": {"float": [0.1, 1]}}
    told = "\n".join(faults(space, model="tinny", folds=[0, 3]))
    assert "tune.model: no model 'tinny'; did you mean 'tiny'?" in told
    assert "tune.folds: there is no fold 3; the last one is 2" in told
    assert "tune.sampler: no 'tpee'; did you mean 'tpe'?" in faults(space, sampler="tpee")[0]
    assert "tune.pruner.percentil: unknown key; did you mean 'percentile'?" in "\n".join(
        faults(space, pruner={"name": "percentile", "percentil": 3})
    )


def test_a_range_of_packed_sizes_is_refused_as_no_file_could_be_packed_for_it() -> None:
    assert "pack: images are packed before the first trial, so list its values" in "\n".join(
        faults({"pack": {"float": [1, 1.5]}})
    )
    config({"pack": {"choice": [1.0, 1.5]}})


def test_every_size_that_the_space_can_come_to_is_known_beforehand() -> None:
    space = {"size": {"choice": ["32x24", "64x48"]}, "roi": {"choice": ["none", "centre-20x20"]}}
    found = config(space | {"fit": {"choice": ["squash", "pad"]}, "pack": {"choice": [1.0, 1.25]}})
    sizes, rois, fits = ("32x24", "64x48", "40x30", "80x60"), ("none", "centre-20x20"), ("squash", "pad")
    reached = {recipe.packed for recipe in found.searched_recipes("size", "roi", "fit", "pack").values()}
    assert reached == set(product(sizes, rois, fits))
