"""Test-time views: the names and mappings that the configuration accepts, and the errors for all others."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import foldvote
from foldvote.config.old_views import rewritten_then, rewritten_view
from foldvote.config.tta import FIVE, NAMED_VIEWS, Predict, checked_views, crop_of, view_faults, view_name
from foldvote.config.validation_errors import readable_errors

GAMMA = {"name": "gamma", "steps": [{"RandomGamma": {"gamma_limit": [80, 80], "p": 1}}]}
NOISE = {"name": "noise", "steps": [{"GaussNoise": {"std_range": [0.2, 0.3], "p": 1}}]}
FIVE_CROPS = [f"crop-{position}-90" for position in FIVE]


def faults(views: Any) -> list[str]:
    with pytest.raises(ValidationError) as error:
        Predict.model_validate({"views": views})
    return list(readable_errors("c.yaml", error.value, Predict))


def test_the_five_crops_are_written_out_and_names_stay_plain_json() -> None:
    then = NOISE | {"then": "hflip"}
    views = Predict.model_validate({"views": ["identity", "five_crops", "rot180", GAMMA, then]}).views
    assert views == ["identity", *FIVE_CROPS, "rot180", GAMMA, then]
    assert json.loads(Predict(views=views).model_dump_json())["views"] == views == checked_views(views)
    assert [view_name(view) for view in views][-3:] == ["rot180", "gamma", "noise"]
    assert Predict(views=["hflip", "five_crops-80"]).views[-1] == "crop-bottom-right-80"
    assert Predict().views == ["identity", "hflip"]


@given(st.sampled_from(FIVE), st.integers(0, 120))
def test_a_crop_has_a_position_and_ten_to_99_percent(position: str, percent: int) -> None:
    name = f"crop-{position}-{percent}"
    assert crop_of(name) == ((position, percent) if 10 <= percent <= 99 else None)
    if crop_of(name):
        assert Predict(views=[name]).views == [name]
    else:
        assert f"no view '{name}'" in faults([name])[0]


@pytest.mark.parametrize(
    ("views", "told"),
    [
        (["hflp"], "no view 'hflp'; did you mean 'hflip'?"),
        (["identity", "crop-center-80"], "no view 'crop-center-80'; did you mean 'crop-centre-90'?"),
        (["rot-90"], "no view 'rot-90'; did you mean 'rot90'?"),
        (["five_crop"], "no view 'five_crop'; did you mean 'five_crops'?"),
        (["xyz"], "no view 'xyz' (known: identity, hflip, "),
        (["five_crops-5"], "no view 'five_crops-5'"),
        (["hflip", "hflip"], "hflip stands twice; name each once"),
        (["five_crops", "crop-centre-90"], "crop-centre-90 stands twice"),
        ([GAMMA, GAMMA], "gamma stands twice"),
        ([{"steps": ["light"]}], "a view of steps needs a name of letters"),
        ([GAMMA | {"name": "a+b"}], "a view of steps needs a name of letters"),
        ([GAMMA | {"name": "crop-centre-80"}], "crop-centre-80: is a view without steps; choose another name"),
        ([GAMMA | {"name": "five_crops"}], "five_crops: is a view without steps; choose another name"),
        ([{"name": "x"}], "x: its steps are missing"),
        ([GAMMA | {"step": 1}], "gamma: unknown key 'step'; did you mean 'steps'?"),
        ([GAMMA | {"then": "vflp"}], "gamma: then: no view 'vflp'; did you mean 'vflip'?"),
        ([GAMMA | {"then": "five_crops"}], "gamma: then: five_crops: stands for five views"),
        ([GAMMA | {"then": 3}], "gamma: then must be the name of a view such as hflip (it is 3)"),
        ([3], "must be names such as hflip, or mappings of name and steps (one is 3)"),
        ([], "needs at least 1 of them, has 0"),
        ("hflip", "must be a list (it is 'hflip'); write [hflip]"),
    ],
)
def test_a_wrong_view_is_told_in_one_line(views: Any, told: str) -> None:
    (line,) = faults(views)
    assert line.startswith(f"c.yaml: views: {told}"), line


def test_all_wrong_views_are_told_at_once() -> None:
    assert len(faults(["hflp", "scale-115", "identity", "identity", GAMMA | {"then": "x"}])) == 4


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([{"RandomGama": {"p": 1}}], "x: RandomGama: no such policy, step or transform; did you mean 'RandomGamma'?"),
        ({"CLAHE": {"clip": 2}}, "x: CLAHE: no argument 'clip'; did you mean 'clip_limit'?"),
        ({"hflip": 2}, "x: steps: hflip: its strength must be a number from 0 to 1 (it is 2)"),
        ([5], "x: steps: "),
    ],
)
def test_unknown_transforms_and_arguments_are_told(steps: Any, told: str) -> None:
    (line,) = view_faults(checked_views([{"name": "x", "steps": steps}]), {})
    assert line.startswith(told) and "\n" not in line


def test_quarter_turns_are_told_of_models_that_are_not_square() -> None:
    views = ["rot90", "rot180", GAMMA | {"then": "rot270"}]
    assert view_faults(views, {"a": "64x64", "b": "128x96"}) == [
        f"{name}: a quarter turn needs images as high as wide, and models.b has 128x96" for name in ("rot90", "gamma")
    ]
    assert view_faults(views, {"a": "64x64"}) == []


def test_names_are_checked_without_torch_and_albumentations() -> None:
    code = "import sys, foldvote.config.tta; print(*sys.modules.keys() & {'torch', 'albumentations'})"
    environment = os.environ | {"PYTHONPATH": str(Path(foldvote.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# --- names of earlier versions


@pytest.mark.parametrize(
    ("old", "told"),
    [
        ("rotate+8", "write {name: rotate8, steps: [{Affine: {rotate: [8, 8], border_mode: 2, p: 1}}]}"),
        ("rotate-8", "write {name: rotate-8, steps: [{Affine: {rotate: [-8, -8], border_mode: 2, p: 1}}]}"),
        ("rotate-90", "write rot270"),
        ("scale-115", "write {name: scale-115, steps: [{Affine: {scale: [1.15, 1.15], border_mode: 2, p: 1}}]}"),
        ("clahe", "write {name: clahe, steps: [{CLAHE: {clip_limit: [2, 2], p: 1}}]}"),
        (
            "darker-20",
            "write {name: darker-20, steps: [{ColorJitter: {brightness: [0.8, 0.8], contrast: [1, 1], saturation: "
            "[1, 1], hue: [0, 0], p: 1}}]}",
        ),
        ("crop-left-90", "write {name: crop-left-90, steps: [{CropAndPad: {percent: [-0.05, -0.1, -0.05, 0], p: 1}}]}"),
        (
            "hflip+clahe-4",
            "write {name: hflip-clahe-4, steps: [{CLAHE: {clip_limit: [4, 4], p: 1}}], then: hflip}",
        ),
        (
            "hflip+five_crops-80",
            "write {name: hflip-crop-centre-80, steps: [{HorizontalFlip: {p: 1}}], then: crop-centre-80}, and the same "
            "for the other four crops",
        ),
    ],
)
def test_a_name_of_earlier_versions_is_refused_with_what_to_write_today(old: str, told: str) -> None:
    assert faults([old]) == [f"c.yaml: views: {old}: {told}"]


OLD_PARTS = ["hflip", "vflip", "rotate+8", "rotate-12.5", "rotate+180", "scale-85", "brighter-20", "contrast+20"]
OLD_PARTS += ["clahe", "clahe-4", "crop-top-90", "crop-bottom-right-87.5", "crop-centre-80", "five_crops"]


@given(st.lists(st.sampled_from(OLD_PARTS), min_size=1, max_size=3, unique=True))
def test_what_is_written_for_an_old_name_is_a_view_of_today(parts: list[str]) -> None:
    old = "+".join(parts)
    text = rewritten_view(old)
    if text is None:
        assert any(part in ("rotate+180", "five_crops") for part in parts)  # a move that stands before another one
        return
    written = yaml.safe_load(text.removeprefix("write ").removesuffix(", and the same for the other four crops"))
    views = checked_views([written])
    assert view_faults(views, {"a": "128x96"}) == []


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("rotate+180", "write rot180"),
        ("rotate+8", "write {Affine: {rotate: [8, 8], border_mode: 2, p: 1}} as the last of steps, and drop then"),
        ("vflip+hflip", "write {VerticalFlip: {p: 1}} as the last of steps, and then: hflip"),
    ],
)
def test_an_old_name_after_steps_is_rewritten_too(then: str, told: str) -> None:
    assert rewritten_then(then) == told
    assert faults([GAMMA | {"then": then}]) == [f"c.yaml: views: gamma: then: {then}: {told}"]


@pytest.mark.parametrize("name", ["xyz", "hflip+xyz", "rotate8", "crop-center-80", "crop--90", "", *NAMED_VIEWS[3:]])
def test_what_never_was_a_view_is_not_rewritten(name: str) -> None:
    assert rewritten_view(name) is None
