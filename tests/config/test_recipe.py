"""The recipe of a model: what it takes, in which forms, and which of its keys contradict each other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foldvote.config.batch_parts import division_faults, fitting_parts, parts_of
from foldvote.config.recipe import Recipe


def recipe(**values: Any) -> Recipe:
    return Recipe.model_validate({"net": "resnet18"} | values)


LIGHT = {"name": "light", "strength": None, "arguments": None}
HFLIP = {"name": "hflip", "strength": 0.5, "arguments": None}
CLAHE = {"name": "CLAHE", "strength": None, "arguments": {}}


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ({"loss": "focal"}, {"loss": [{"name": "focal"}]}),
        ({"loss": ["focal", {"name": "soft_f1"}]}, {"loss": [{"name": "focal"}, {"name": "soft_f1"}]}),
        ({"schedule": "plateau"}, {"schedule": {"name": "plateau"}}),
        ({"mix": "mixup"}, {"mix": [{"name": "mixup"}]}),
        ({"augment": "light"}, {"augment": [LIGHT]}),
        ({"augment": {"hflip": 0.5, "CLAHE": None}}, {"augment": [HFLIP, CLAHE]}),
        ({"augment": ["light", {"hflip": 0.5}]}, {"augment": [LIGHT, HFLIP]}),
    ],
)
def test_short_and_full_forms_are_one(short: dict, full: dict) -> None:
    assert recipe(**short) == recipe(**full) != recipe()
    assert Recipe.model_validate(recipe(**short).model_dump(mode="json")) == recipe(**short)


def test_a_net_is_compiled_always_never_or_where_it_pays() -> None:
    assert [recipe(compile=value).compile for value in (True, False, "auto")] == [True, False, "auto"]
    assert recipe().compile == "auto"
    with pytest.raises(ValidationError) as told:
        recipe(compile="maybe")
    assert told.value.error_count() == 1 and "'auto', True or False" in str(told.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs 3.0 leaves nothing of 3 epochs"),
        ({"roi": "box-5-0-3-9"}, "roi box-5-0-3-9 is empty"),
        ({"freeze_epochs": 11, "pretrained": "w.pth"}, "freeze_epochs 11 is more than the 10 epochs"),
        ({"freeze_epochs": 1}, "freeze_epochs would keep drawn weights as they are"),
        ({"batch_size": 10, "accumulate": 3}, "accumulate 3 does not cut batch_size 10 into equal parts"),
        ({"batch_size": 4, "accumulate": 4}, "accumulate 4 does not cut batch_size 4 into equal parts"),
        ({"batch_size": 8, "group_shots": 3}, "group_shots 3 does not divide batch_size 8; change one"),
        (
            {"batch_size": 8, "accumulate": 4, "group_shots": 4},
            "group_shots 4 does not divide a part of batch_size 8 (accumulate 4)",
        ),
        ({"group_shots": 2, "sampler": {"by": "class"}}, "group_shots and sampler are two ways"),
        ({"loss": ["focal", "consistency"]}, "consistency and partner: group need several images of a group"),
        (
            {"mix": {"name": "mixup", "partner": "group"}},
            "consistency and partner: group need several images of a group",
        ),
        ({"loss": "consistency", "group_shots": 2}, "loss: consistency learns no labels; add another term"),
        ({"loss": ["sup_con"]}, "loss: sup_con learns no labels; add another term"),
        ({"loss": ["focal", "sup_con"], "compile": True}, "loss: sup_con is of features within the net, which compile"),
        ({"ema": 0.9, "swa": 0.5}, "ema and swa are two averages"),
        ({"soup": 2}, "soup 2 averages the best epochs"),
        ({"dropout_samples": 2}, "dropout_samples without dropout are all alike"),
        ({"pseudo": {"models": ["b"]}, "sampler": {"by": "stratum"}}, "pseudo: test images have no stratum"),
        ({"mix": [{"name": "mixup", "p": 0.6}, {"name": "cutmix", "p": 0.6}]}, "mix: the shares p add up to 1.2"),
        ({"mix": "mixup", "mix_off_epochs": 10}, "mix_off_epochs 10 leaves none of 10 epochs with mixes"),
        ({"mix_off_epochs": 2}, "mix_off_epochs without a mix"),
        ({"ema_warmup": "timm"}, "ema_warmup timm without an average"),
        ({"drop_path_schedule": "rising"}, "drop_path_schedule rising: drop_path is 0"),
        ({"drop_path_schedule": "rising", "drop_path": 0.1, "compile": True}, "drop_path_schedule rising: compile"),
        ({"progressive": {"size": "128x96", "epochs": 2}}, "progressive: 128x96 is not smaller than size 128x96"),
        ({"progressive": {"size": "144x64", "epochs": 2}}, "progressive: 144x64 is not smaller than size 128x96"),
        ({"progressive": {"size": "64x48", "epochs": 10}}, "progressive: epochs 10 leaves none of 10"),
        (
            {"net": "convnext_nano", "progressive": {"size": "50x32", "epochs": 2}},
            "progressive: size 50x32: convnext_nano takes patches",
        ),
        (
            {"augment": ["medium", {"clahe": 0.1}], "augment_on": "device"},
            "augment_on: device does not have Affine, GaussianBlur, clahe; it has hflip, crop, rotate, colour, erase,",
        ),
        (
            {"pack": 1.25, "augment_on": "device"},
            "augment_on: device takes images that are packed in their size",
        ),
        ({"labels": {"age_borders": [60, 30]}}, "must be two rising ages above 0"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(values: dict, told: str) -> None:
    with pytest.raises(ValidationError) as error:
        recipe(**values)
    (fault,) = error.value.errors()
    assert str(fault["ctx"]["error"]).startswith(told)


@pytest.mark.parametrize("value", [[], ["cosine", "step"], [{"name": "step"}]])
def test_f177_a_recipe_has_one_schedule_and_a_list_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError) as error:
        recipe(schedule=value)
    assert [fault["loc"] for fault in error.value.errors()] == [("schedule",)]


def test_fit_and_pack_are_among_what_is_packed_except_the_fit_of_faces_which_have_the_aspect_ratio() -> None:
    assert recipe().packed.folder == "size=128x96/roi=none"
    assert recipe(fit="pad", roi="centre-8x8").packed.folder == "size=128x96/roi=centre-8x8/fit=pad"
    assert recipe(fit="pad", roi="face-0.30").packed == recipe(roi="face-0.30").packed
    assert recipe(pack=1.25).packed == recipe(size="160x120").packed  # so that both read one file
    assert recipe(pack=1.25, size="15x25").packed.size == "19x31"
    with pytest.raises(ValidationError, match="less than or equal to 2"):
        recipe(pack=2.5)
    with pytest.raises(ValidationError, match="'squash', 'pad' or 'crop'"):
        recipe(fit="stretch")


@pytest.mark.parametrize("augment", ["none", "base", "light", {"rotate": 0.1, "erase": 0.5, "clahe": 0}])
def test_policies_whose_every_step_a_device_has_may_run_there(augment: object) -> None:
    assert recipe(augment=augment, augment_on="device").augment_on == "device"


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as error:
        recipe(ema=0.9, swa=0.5, soup=2, dropout_samples=2)
    assert len(str(error.value.errors()[0]["ctx"]["error"]).splitlines()) == 3


# --- batches that several processes share


@pytest.mark.parametrize(
    ("accumulate", "processes", "parts"), [(1, 1, 1), (4, 1, 4), (1, 2, 2), (4, 2, 4), (3, 2, 4), (1, 3, 3), (4, 3, 6)]
)
def test_parts_are_shared_equally(accumulate: int, processes: int, parts: int) -> None:
    assert parts_of(accumulate, processes) == parts


@given(st.integers(1, 4096), st.integers(1, 64))
def test_a_part_is_never_larger_than_one_process_would_take(accumulate: int, processes: int) -> None:
    parts = parts_of(accumulate, processes)
    assert accumulate <= parts < accumulate + processes and parts % processes == 0


@given(st.integers(1, 64), st.integers(2, 64))
def test_parts_of_a_small_batch_hold_two_images_or_more(accumulate: int, batch: int) -> None:
    parts = fitting_parts(accumulate, batch)
    assert 1 <= parts <= accumulate and batch // parts >= 2
    assert parts == accumulate or batch // (parts + 1) < 2


def test_batches_that_cannot_be_shared_are_refused_with_the_keys_to_change() -> None:
    assert not list(division_faults(7, 3, 1))
    assert not list(division_faults(8, 4, 2))
    for batch, parts in ((7, 2), (4, 4), (12, 8)):
        (fault,) = division_faults(batch, parts, 2)
        assert f"batches of {batch} images" in fault and "runtime.gpus_per_member" in fault
    assert not list(division_faults(16, 4, 2, shots=4)) and not list(division_faults(6, 3, 1, shots=4))
    (fault,) = division_faults(12, 2, 2, shots=4)
    assert "give each of 2 processes 6, which cut the 4 images of a group (group_shots)" in fault
