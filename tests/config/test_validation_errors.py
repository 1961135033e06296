"""Errors of a configuration as one reads them: one true line for each fault, which says what to write."""

from typing import Any

import pytest

from foldvote.config.experiment import check_config
from foldvote.errors import UserError


def told(path: str, value: Any) -> list[str]:
    """The errors of a configuration that is right but for one key, given as models/small/size."""
    values: dict[str, Any] = {"data": {"layout": "demo"}, "models": {"small": {"net": "test_resnet"}}}
    *above, last = path.split("/")
    section = values
    for key in above:
        section = section.setdefault(key, {})
    section[last] = value
    with pytest.raises(UserError) as error:
        check_config(values, "my.yaml")
    return list(error.value.faults)


@pytest.mark.parametrize("size", [224, [64, 48], "224", "64-48"])
def test_a_size_of_another_form_says_the_form(size: Any) -> None:
    line = f"my.yaml: models.small.size: write height x width in pixels, such as 224x224 (it is {size!r})"
    assert told("models/small/size", size) == [line]
    assert told("data/picture_size", size) == [line.replace("models.small.size", "data.picture_size")]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("roi", 3, "write what is cut out before the resize: none, centre-HxW, box-"),
        ("epoch", 10, "must be 'last' or 'best' (it is 10); for the number of epochs write epochs: 10"),
        ("epochs", "ten", "must be a whole number (it is 'ten')"),
        ("lr", "fast", "must be a number (it is 'fast')"),
        ("channels_last", "maybe", "must be true or false (it is 'maybe')"),
        ("compile", 3, "must be 'auto', true or false (it is 3)"),
        ("net", 3, "must be a text (it is 3)"),
        ("pretrained", 3, "must be true, false or a text (it is 3)"),
    ],
)
def test_a_wrong_type_says_the_right_one(path: str, value: Any, line: str) -> None:
    (fault,) = told(f"models/small/{path}", value)
    assert fault.startswith(f"my.yaml: models.small.{path}: {line}")


@pytest.mark.parametrize(
    ("path", "value", "begins", "ends"),
    [
        ("vote/use", "average", "no ensemble method 'average'; choose one of", "with +expected or +offsets, or 'auto'"),
        ("models/small/best_by", "f1", "no metric 'f1'; known: macro_f1,", "or a file NAME.py, or 'loss'"),
        ("folds/stratify", "label_x", "must be 'label' or a list", "did you mean 'label'?"),
        ("folds/stratify", "gender", "must be 'label' or a list (it is 'gender')", "; write [gender]"),
        ("models/small/heads", "facored", "must be 'joint', 'factored' or `key: value`", "did you mean 'factored'?"),
        ("submission/pooling", "meen", "must be 'mean', 'geometric'", "or 'auto' (it is 'meen'); did you mean 'mean'?"),
        ("tune", {"folds": 0, "space": {"lr": {"float": [0.1, 1]}}}, "must be 'all' or a list", "write [0]"),
    ],
)
def test_a_union_has_one_line(path: str, value: Any, begins: str, ends: str) -> None:
    (fault,) = told(path, value)
    place, _, text = fault.removeprefix("my.yaml: ").partition(": ")
    assert place.startswith(path.replace("/", ".")) and text.startswith(begins) and text.endswith(ends), fault


def test_a_list_that_is_too_short_is_no_wrong_word() -> None:
    assert told("folds/stratify", []) == ["my.yaml: folds.stratify: needs at least 1 of them, has 0"]


def test_of_a_union_only_the_member_that_was_meant_is_told() -> None:
    faults = told("models/small/heads", {"age": "ordinl", "mask": 3})
    assert [fault.split(": ")[1] for fault in faults] == ["models.small.heads.age", "models.small.heads.mask"]
    assert faults[0].endswith("must be 'classes', 'ordinal' or 'regression' (it is 'ordinl'); did you mean 'ordinal'?")


@pytest.mark.parametrize(
    ("path", "value", "ends"),
    [
        ("models/small", "resnet18", "(it is 'resnet18'); write {net: resnet18}"),
        ("models/small/sampler", "class", "write {by: class}"),
        ("models/small/progressive", "64x48", "write {size: 64x48, epochs: ...}"),
        ("models/small/distill", ["a"], "write {models: [a]}"),
        ("vote", "mean", "write {use: mean}"),
        ("folds", 5, "write {k: 5}"),
        ("predict", "identity", "write {views: [identity]}"),
        ("guests/a", "oof.csv", "write {oof: oof.csv}"),
        ("data", "/photos", "begin with layout, one of demo, maskbase, table, folders"),
        ("leak_check", False, "(it is false); write null"),
        ("submission", "ans", "must hold `key: value` lines (it is 'ans')"),  # it may be a file or a column
    ],
)
def test_a_value_in_place_of_a_section_is_told_its_key(path: str, value: Any, ends: str) -> None:
    (fault,) = told(path, value)
    assert f"{path.replace('/', '.')}: must hold `key: value` lines (it is " in fault and fault.endswith(ends), fault


def test_one_value_in_place_of_a_list_is_shown_as_a_list() -> None:
    assert told("predict/views", "identity") == [
        "my.yaml: predict.views: must be a list (it is 'identity'); write [identity]"
    ]
    assert told("models/small/factors", "age")[0].endswith("must be a list (it is 'age'); write [age]")
    assert told("predict/views", 3) == ["my.yaml: predict.views: must be a list (it is 3)"]


@pytest.mark.parametrize("strength", [5, -0.1, "x", True])
def test_a_strength_is_told_with_its_step(strength: Any) -> None:
    line = f"my.yaml: models.small.augment: hflip: its strength must be a number from 0 to 1 (it is {strength!r})"
    assert told("models/small/augment", {"crop": 0.1, "hflip": strength}) == [line]
    assert told("models/small/augment", ["clahe", {"hflip": strength}]) == [line]
