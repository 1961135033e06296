"""The section of networks that learn from all groups: what it names, and what cannot learn without validation."""

import pytest

from foldvote.config.experiment import check_config
from foldvote.errors import UserError

FACTORS = {"wear": ["yes", "no"], "sex": ["m", "f"]}
TABLE = {"layout": "table", "table": "t.csv", "path": "path", "group": "who", "label": None, "factors": FACTORS}
BASE = {"data_root": "x", "data": TABLE, "folds": {"k": 3}, "models": {"small": {"net": "resnet18"}}}


def faults(refit: dict, **changes: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        check_config(BASE | changes | {"refit": refit})
    return list(caught.value.faults)


def test_by_default_there_is_none_and_an_empty_section_refits_every_model_and_measures_every_fold() -> None:
    assert check_config(BASE).refitted == [] and check_config(BASE).curve_folds == []
    config = check_config(BASE | {"refit": {}, "models": {"b": {"net": "resnet18"}, "a": {"net": "resnet18"}}})
    assert config.refitted == ["a", "b"]
    assert config.curve_folds == [0, 1, 2] and config.curve_shares == ["0.5", "0.65", "0.8"]
    assert config.refit_seed != config.seed


def test_without_a_curve_no_fold_is_measured() -> None:
    assert check_config(BASE | {"refit": {"curve": []}}).curve_folds == []


def test_unknown_models_and_folds_are_named_with_the_nearest_known_one() -> None:
    assert "config: refit.models: no model 'smalls'; did you mean 'small'?" in faults({"models": ["smalls"]})
    (told,) = faults({"curve_folds": [1, 3]}, folds={"k": 3, "repeats": 2})
    assert told == "config: refit.curve_folds: there is no fold 3 in the first repeat; the last one is 2"


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"pseudo": {"models": ["small"]}}, "second learns from pseudo-labels, which belong to a fold"),
        ({"distill": {"models": ["small"]}}, "second learns from teachers (distill), which belong to a fold"),
        ({"kind": "probe", "pretrained": "w.pth"}, "second is a probe (kind: probe), which is fitted fold by fold"),
        ({"schedule": "plateau"}, "second lowers its learning rate by validation scores"),
        ({"factors": ["wear"]}, "has models of some factors and none of sex"),
    ],
)
def test_a_model_that_needs_a_fold_is_refused_only_if_it_is_named(recipe: dict, told: str) -> None:
    models = BASE["models"] | {"second": {"net": "resnet18"} | recipe}
    if "factors" in recipe:
        models |= {"third": {"net": "resnet18", "factors": ["sex"]}}
    named = [name for name in models if name != "third"]
    split = {"split": "split"}
    (fault,) = faults({"models": named}, models=models, data=TABLE | split)
    assert fault.startswith("config: refit.models: ") and told in fault
    config = check_config(BASE | {"models": models, "data": TABLE | split, "refit": {"models": ["small"]}})
    assert config.refitted == ["small"]


@pytest.mark.parametrize("curve", [[0.8, 0.5], [0.5], [0.5, 0.55], [0.5, 0.95], [0.05, 0.5]])
def test_shares_rise_by_so_much_that_groups_tell_them_apart(curve: list[float]) -> None:
    (told,) = faults({"curve": curve})
    assert told.startswith("config: refit.curve: ")


def test_models_of_single_factors_count_as_one_voter() -> None:
    models = BASE["models"] | {name: {"net": "resnet18", "factors": [name]} for name in FACTORS}
    assert check_config(BASE | {"models": models}).whole_voters == 2
