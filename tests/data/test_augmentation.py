"""Random changes to training images: what they do, what is refused, and what albumentations has."""

import inspect
import random
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torchvision.transforms import v2

from foldvote.config.augment import AUTO_AUGMENTS, POLICIES, SHORT_STEPS, Augment, AugmentStep, expanded
from foldvote.config.augmentation_names import transform_faults
from foldvote.data.augmentation import augmenter, check_steps, step_seeds
from foldvote.data.cropping import resize

HEIGHT, WIDTH = 32, 24


def steps(written: Any) -> list[AugmentStep]:
    """The steps of `augment: written` in a recipe."""
    return TypeAdapter(Augment).validate_python(written)


def photograph(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def places(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: their row in red, their column in green."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


# --- draws

short_steps = st.dictionaries(st.sampled_from(SHORT_STEPS), st.floats(0, 1), max_size=5)


@given(short_steps | st.sampled_from(POLICIES), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
@settings(max_examples=50, deadline=None)
def test_f48_equal_seeds_give_equal_images_whatever_came_before(written: Any, seed: int, other: int) -> None:
    first, second = augmenter(steps(written), HEIGHT, WIDTH), augmenter(steps(written), HEIGHT, WIDTH)
    image = photograph()
    before = image.copy()
    drawn = first(image, seed)
    second(photograph(1), other)
    assert np.array_equal(second(image, seed), drawn)
    assert drawn.shape == (HEIGHT, WIDTH, 3) and drawn.dtype == np.uint8
    assert np.array_equal(image, before)


@pytest.mark.parametrize("written", ["light", "medium", "heavy", "custom", {"erase": 1}, {"colour": 0.5}])
def test_unequal_seeds_give_unequal_images(written: Any) -> None:
    change = augmenter(steps(written), HEIGHT, WIDTH)
    assert len({change(photograph(), seed).tobytes() for seed in range(20)}) >= 18


# --- short steps


@pytest.mark.parametrize("written", [[], "none", "base", dict.fromkeys(SHORT_STEPS, 0), ["base", {"hflip": 0}]])
def test_without_steps_the_very_image_comes_back(written: Any) -> None:
    image = photograph()
    assert augmenter(steps(written), HEIGHT, WIDTH)(image, 1) is image


def test_flips_and_colours_do_what_their_names_say() -> None:
    image = photograph()
    assert np.array_equal(augmenter(steps({"hflip": 1}), HEIGHT, WIDTH)(image, 1), image[:, ::-1])
    sometimes = augmenter(steps({"hflip": 0.25}), HEIGHT, WIDTH)
    assert 60 < sum(not np.array_equal(sometimes(image, seed), image) for seed in range(400)) < 140
    colour = augmenter(steps({"colour": 0.5}), HEIGHT, WIDTH)
    plain = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    assert len({colour(plain, seed).tobytes() for seed in range(10)}) > 5
    assert all(colour(plain, seed).std(axis=(0, 1)).max() == 0 for seed in range(10)), "colour moves nothing"


def test_steps_draw_independently_of_each_other() -> None:
    """albumentations seeds all steps alike: with it, each erased image is a mirrored one."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, : WIDTH // 2] = 120
    image[:, WIDTH // 2 :] = 60
    change = augmenter(steps({"hflip": 0.5, "erase": 0.5}), HEIGHT, WIDTH)
    seen = [change(image, seed) for seed in range(300)]
    mirrored = np.array([np.median(one[:, : WIDTH // 2]) == 60 for one in seen])
    erased = np.array([not np.isin(one, (60, 120)).all() for one in seen])
    assert 0.35 < mirrored.mean() < 0.65 and 0.35 < erased.mean() < 0.65
    assert 0.35 < mirrored[erased].mean() < 0.65


def test_a_crop_keeps_the_share_that_is_asked_for() -> None:
    image = places(128, 96)
    crop = augmenter(steps({"crop": 0.4}), 128, 96)
    shares = []
    for seed in range(60):
        seen = crop(image, seed).astype(int)
        shares.append((np.ptp(seen[..., 0]) + 1) * (np.ptp(seen[..., 1]) + 1) / (128 * 96))
    assert 0.52 < min(shares) < 0.7 and 0.9 < max(shares) <= 1


@given(st.floats(0.01, 0.9), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_crop_of_an_image_as_large_as_the_output_is_albumentations_own(most: float, seed: int) -> None:
    ratio = WIDTH / HEIGHT
    own = A.Compose(
        [A.RandomResizedCrop((HEIGHT, WIDTH), scale=(max(1 - most, 0.01), 1.0), ratio=(ratio * 0.9, ratio / 0.9), p=1)]
    )
    own.transforms[0].set_random_seed(step_seeds(seed, 1)[0])
    crop = augmenter(steps({"crop": most}), HEIGHT, WIDTH)
    assert np.array_equal(crop(photograph(), seed), own(image=photograph())["image"])


# --- images that are packed larger


@given(
    short_steps | st.sampled_from(POLICIES), st.integers(0, 2**63 - 1), st.sampled_from([(32, 24), (40, 30), (64, 48)])
)
@settings(max_examples=50, deadline=None)
def test_every_augmentation_of_a_larger_image_has_the_size_that_the_network_takes(
    written: Any, seed: int, packed: tuple[int, int]
) -> None:
    first, second = (augmenter(steps(written), HEIGHT, WIDTH, packed) for _ in range(2))
    image = photograph(0, *packed)
    drawn = first(image, seed)
    assert drawn.shape == (HEIGHT, WIDTH, 3) and drawn.dtype == np.uint8
    assert np.array_equal(second(image, seed), drawn)
    assert check_steps(steps(written), HEIGHT, WIDTH, packed) == []


def test_a_crop_of_a_larger_image_shows_its_own_pixels() -> None:
    image = places(64, 48)
    cut = augmenter(steps({"RandomCrop": {"height": 32, "width": 24, "p": 1}}), 32, 24, (64, 48))
    corners = set()
    for seed in range(20):
        seen = cut(image, seed)
        top, left = (int(value) for value in seen[0, 0, :2])
        assert np.array_equal(seen, image[top : top + 32, left : left + 24])
        corners.add((top, left))
    assert len(corners) > 10
    crop = augmenter(steps({"crop": 0.5}), 32, 24, (64, 48))
    shares = []
    for seed in range(40):
        seen = crop(image, seed).astype(float)
        down, across = np.diff(seen[..., 0], axis=0), np.diff(seen[..., 1], axis=1)
        assert down.min() >= 1 and across.min() >= 1  # never two rows or columns from one
        shares.append(np.ptp(seen[..., 0]) * np.ptp(seen[..., 1]) / (64 * 48))
    assert 0.4 < min(shares) < 0.6 and max(shares) > 0.85


def test_a_larger_image_is_averaged_not_sampled_by_a_crop_and_without_one() -> None:
    stripes = np.zeros((96, 72, 3), np.uint8)
    stripes[::2] = 255  # single pixels are 0 or 255, averages of three rows 85 or 170
    for written in ({"crop": 0.01}, [], {"hflip": 1}):
        change = augmenter(steps(written), 32, 24, (96, 72))
        for seed in range(9):
            assert abs(change(stripes, seed).mean() - 127.5) < 8 and change(stripes, seed).std() < 60
    assert np.array_equal(augmenter([], 32, 24, (96, 72))(stripes, 1), resize(stripes, 32, 24))


def test_a_step_that_leaves_a_larger_image_too_large_is_refused() -> None:
    (fault,) = check_steps(steps({"CenterCrop": {"height": 36, "width": 24}}), 32, 24, (40, 30))
    assert fault.startswith("CenterCrop: gives images of 36x24x3; all must stay 32x24x3")
    (fault,) = check_steps(steps([{"RandomCrop": {"height": 32, "width": 24, "p": 0.5}}]), 32, 24, (40, 30))
    assert fault.startswith("RandomCrop: gives images of 40x30x3; all must stay 32x24x3")


def test_erasing_replaces_one_rectangle_by_noise_and_nothing_else() -> None:
    image = np.full((128, 96, 3), 120, np.uint8)
    erase = augmenter(steps({"erase": 1}), 128, 96)
    for seed in range(40):
        changed = (erase(image, seed) != image).any(axis=-1)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert 0.015 < box.size / changed.size < 0.21 and box.mean() > 0.99
    sometimes = augmenter(steps({"erase": 0.25}), 128, 96)
    assert 20 < sum((sometimes(image, seed) != image).any() for seed in range(200)) < 85


def test_clahe_spreads_the_greys_of_a_dull_image() -> None:
    dull = (photograph() // 8 + 100).astype(np.uint8)
    even = augmenter(steps({"clahe": 1}), HEIGHT, WIDTH)
    assert all(even(dull, seed).std() > dull.std() for seed in range(5))
    sometimes = augmenter(steps({"clahe": 0.5}), HEIGHT, WIDTH)
    assert 60 < sum(not np.array_equal(sometimes(dull, seed), dull) for seed in range(200)) < 140


def test_steps_come_in_the_order_that_they_are_written_in() -> None:
    """Grey after a change of colours leaves grey images; before it, it does not."""
    grey, tint = {"ToGray": {"p": 1}}, {"RGBShift": {"r_shift_limit": [40, 40], "p": 1}}
    image = photograph()
    last = augmenter(steps([tint, grey]), HEIGHT, WIDTH)(image, 1)
    first = augmenter(steps([grey, tint]), HEIGHT, WIDTH)(image, 1)
    assert (last == last[..., :1]).all() and not (first == first[..., :1]).all()


# --- automatic augmentation

AUTOMATIC = ["rand-m9-mstd0.5-inc1", "rand-m7-n3-tweights", "augmix-m3-w3", *({name: {}} for name in AUTO_AUGMENTS)]


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def draw_of_all() -> list[float]:
    return [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002


@pytest.mark.parametrize("written", AUTOMATIC, ids=str)
def test_f48_automatic_augmentation_draws_from_the_seed_alone_and_disturbs_no_generator(written: Any) -> None:
    first, second = augmenter(steps(written), HEIGHT, WIDTH), augmenter(steps(written), HEIGHT, WIDTH)
    image = photograph()
    drawn = []
    for number, change in enumerate((first, second, first)):
        seed_all(number)
        drawn.append([change(image, seed) for seed in range(12)])
        later = draw_of_all()
        seed_all(number)
        assert later == draw_of_all()
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[0], drawn[2])
    assert len({one.tobytes() for one in drawn[0]}) >= 6
    assert check_steps(steps(["light", written]), HEIGHT, WIDTH) == []


@pytest.mark.parametrize("written", ["rand-m0-n5-p1", "rand-m10-n5-p1-inc1", "augmix-m10-d9-mstd0.1"])
def test_automatic_augmentation_takes_the_largest_magnitude(written: str) -> None:
    change = augmenter(steps(written), HEIGHT, WIDTH)
    assert all(change(photograph(), seed).shape == (HEIGHT, WIDTH, 3) for seed in range(40))


def test_automatic_augmentation_has_its_share_of_images_and_its_arguments() -> None:
    sometimes = augmenter(steps({"AugMix": {"p": 0.25}}), HEIGHT, WIDTH)
    assert 25 < sum(not np.array_equal(sometimes(photograph(), seed), photograph()) for seed in range(200)) < 80
    by_magnitude = [
        augmenter(steps({"RandAugment": {"magnitude": number, "num_ops": 1}}), HEIGHT, WIDTH) for number in (1, 30)
    ]
    image = places(HEIGHT, WIDTH).astype(int)
    weak, strong = (
        np.mean([abs(change(places(HEIGHT, WIDTH), seed) - image).mean() for seed in range(60)])
        for change in by_magnitude
    )
    assert strong > 1.5 * weak


def test_the_configuration_knows_torchvisions_own_arguments() -> None:
    for name, known in AUTO_AUGMENTS.items():
        own = set(inspect.signature(getattr(v2, name).__init__).parameters) - {"self"}
        assert set(known) - {"p"} == own


# --- policies


def test_each_policy_of_a_recipe_is_made_of_sound_steps() -> None:
    for name in POLICIES:
        assert check_steps(steps(name), 128, 96) == []


def test_policies_stand_among_other_steps() -> None:
    written = steps(["light", {"CLAHE": {"p": 0.3}}, {"erase": 0.25}, "base"])
    assert [step.name for step in expanded(written)] == ["hflip", "crop", "colour", "CLAHE", "erase"]


def test_rising_policies_change_more_and_leave_faces_upright() -> None:
    image = places(128, 96)
    moved = []
    for name in ("light", "medium", "heavy"):
        keeps = [step for step in expanded(steps(name)) if step.name in ("hflip", "crop", "Affine")]
        change = augmenter(keeps, 128, 96)
        seen = [change(image, seed)[..., 0].astype(int) for seed in range(60)]
        assert all(rows[:32].mean() < rows[-32:].mean() - 40 for rows in seen), "upside down"
        moved.append(np.mean([abs(rows - image[..., 0]).mean() for rows in seen]))
    assert moved == sorted(moved)


def test_the_baselines_policy_shows_the_centre() -> None:
    crop = expanded(steps("custom"))[:1]
    seen = augmenter(crop, 128, 96)(places(128, 96), 1).astype(int)
    assert abs(seen[0, 0, 0] - 24) <= 1 and abs(seen[-1, 0, 0] - 103) <= 1  # 80 of 128 rows
    assert abs(seen[0, 0, 1] - 16) <= 1 and abs(seen[0, -1, 1] - 79) <= 1  # 64 of 96 columns


# --- names


WRONG_NAMES = [
    ({"HorizontalFlop": {}}, "HorizontalFlop: no such policy, step or transform; did you mean 'HorizontalFlip'?"),
    (["medum"], "medum: no such policy, step or transform; did you mean 'medium'?"),
    ([{"CLAHE": {"clip": 2}}], "CLAHE: no argument 'clip'; did you mean 'clip_limit'?"),
    ([{"GaussNoise": {"var_limit": 9}}], "GaussNoise: no argument 'var_limit'"),
    ([{"NoOp": {"always_apply": True}}], "NoOp: no argument 'always_apply'"),
    (["hflip"], "hflip: its strength from 0 to 1 is missing; write `hflip: 0.5` or the like"),
    (
        [{"name": "crop", "strength": 0.1, "arguments": {"p": 1}}],
        "crop: takes a strength from 0 to 1 and no arguments; write `crop: 0.5` or the like",
    ),
    (
        [{"name": "CLAHE", "strength": 0.3}],
        "CLAHE: is a transform, which takes arguments and no strength; write `CLAHE: {p: 0.3}`",
    ),
    (["rand-foo"], "rand-foo: is not written as timm writes it, such as rand-m9-mstd0.5-inc1"),
    (["augmix-m3-n2"], "augmix-m3-n2: is not written as timm writes it"),
    ([{"rand-m9": {"n": 2}}], "rand-m9: its settings are in its name; write that alone, or `rand-m9: {p: 0.5}`"),
    ([{"RandAugment": {"magnitud": 2}}], "RandAugment: no argument 'magnitud'; did you mean 'magnitude'?"),
    (["RandAugmen"], "RandAugmen: no such policy, step or transform; did you mean 'RandAugment'?"),
    ([{"light": {"p": 1}}], "light: is a policy, which takes neither strength nor arguments; write its name alone"),
]


@pytest.mark.parametrize(("written", "told"), WRONG_NAMES)
def test_a_wrong_name_is_told_with_the_nearest_right_one(written: Any, told: str) -> None:
    assert [fault.startswith(told) for fault in transform_faults(steps(written))] == [True]
    assert check_steps(steps(written), HEIGHT, WIDTH) == transform_faults(steps(written))


def test_all_wrong_names_are_told_at_once_and_right_ones_are_not() -> None:
    written = steps(["light", {"Affin": {}}, {"Blur": {"limit": 3, "p": 1, "size": 2}}, {"hflip": 0.5}, "CLAHE"])
    assert [fault.split(":")[0] for fault in transform_faults(written)] == ["Affin", "Blur", "Blur"]


# --- values and results

WRONG_VALUES = [
    ({"CLAHE": {"clip_limit": -3}}, "CLAHE: clip_limit: "),
    ({"GaussNoise": {"std_range": [2, 3]}}, "GaussNoise: std_range: "),
    ({"HorizontalFlip": {"p": 2}}, "HorizontalFlip: p: "),
    ({"Resize": {"height": 8}}, "Resize: width: Field required"),
    ({"ShiftScaleRotate": {}}, "ShiftScaleRotate: ShiftScaleRotate is a special case of Affine"),
    ({"Blur": {"blur_limit": [2, 4]}}, "Blur: blur_limit: Invalid kernel size range"),
    ({"Normalize": {}}, "Normalize: gives a float32 array, not a uint8 array"),
    ({"ToTensorV2": {}}, "ToTensorV2: gives a Tensor, not a uint8 array"),
    ({"CenterCrop": {"height": 8, "width": 8}}, "CenterCrop: gives images of 8x8x3; all must stay 32x24x3"),
    ({"RandomRotate90": {"p": 0.01}}, "RandomRotate90: gives images of 24x32x3; all must stay 32x24x3"),
    ({"RandAugment": {"magnitude": 99}}, "RandAugment: index 99 is out of bounds"),
    ({"CenterCrop": {"height": 80, "width": 8}}, "CenterCrop: Crop size (height, width) exceeds image dimensions"),
    ({"MaskDropout": {"p": 0.1}}, "MaskDropout: MaskDropout requires ['mask']"),
    ({"Mosaic": {}}, "Mosaic: Mosaic requires"),
    ({"BBoxSafeRandomCrop": {}}, "BBoxSafeRandomCrop: needs 'bboxes', which an image alone does not have"),
]


@pytest.mark.parametrize(("written", "told"), WRONG_VALUES)
def test_wrong_values_and_unfit_results_are_told_in_one_line(written: Any, told: str) -> None:
    (fault,) = check_steps(steps(["light", written, {"erase": 0.5}]), HEIGHT, WIDTH)
    assert fault.startswith(told) and "\n" not in fault and "pydantic" not in fault and len(fault) < 260


def test_all_wrong_values_are_told_at_once() -> None:
    written = steps([{"CLAHE": {"clip_limit": -3}}, "light", {"HorizontalFlip": {"p": 2}}])
    assert [fault.split(":")[0] for fault in check_steps(written, HEIGHT, WIDTH)] == ["CLAHE", "HorizontalFlip"]


def test_a_crop_that_a_later_step_undoes_is_no_fault() -> None:
    crop, back = {"RandomCrop": {"height": 16, "width": 16, "p": 1}}, {"Resize": {"height": HEIGHT, "width": WIDTH}}
    assert check_steps(steps([crop, "light", back]), HEIGHT, WIDTH) == []
    (fault,) = check_steps(steps([back, crop]), HEIGHT, WIDTH)
    assert fault.startswith("RandomCrop: gives images of 16x16x3")


def test_a_transform_that_draws_on_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter(range(1000))
    monkeypatch.setattr(A.NoOp, "apply", lambda _self, img, **_: img ^ np.uint8(next(draws) % 251))
    assert check_steps(steps([{"NoOp": {"p": 1}}]), HEIGHT, WIDTH) == [
        "NoOp: gives two images for one seed; leave it out"
    ]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SHORT_STEPS)
def test_every_short_step_is_sound_at_every_strength(name: str, strength: float) -> None:
    assert check_steps(steps({name: strength}), HEIGHT, WIDTH) == []
