"""Augmentation of whole batches: what it does to an image, whatever batch it is in, and what albumentations does."""

import colorsys

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from foldvote.config.augment import DEVICE_STEPS, Augment, AugmentStep
from foldvote.data.augmentation import augmenter
from foldvote.data.augmentation_draws import draw_changes
from foldvote.training import device_augmentation
from foldvote.training.device_augmentation import augment_batch
from support.data_folders import picture

HEIGHT, WIDTH = 32, 24

pytestmark = pytest.mark.usefixtures("one_thread")


def steps(written: object) -> list[AugmentStep]:
    return TypeAdapter(Augment).validate_python(written)


def augmented(images: np.ndarray, written: object, seeds: list[int]) -> np.ndarray:
    """uint8 images as the device changes them."""
    drawn = draw_changes(steps(written), seeds, *images.shape[1:3])
    changes = [(kind, torch.from_numpy(numbers)) for kind, numbers in drawn]
    return augment_batch(torch.from_numpy(images.copy()), changes).numpy()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Colours that change slowly from place to place."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.reshape([HEIGHT, WIDTH], (2, 1, 1))
    return np.stack([70 + 90 * x, 80 + 60 * y + 30 * x, 140 - 60 * x * y], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("written", [{"hflip": 0.4}, {"crop": 0.4}, {"rotate": 0.15}, {"colour": 0.4}, {"erase": 0.6}])
def test_a_step_changes_images_as_that_of_albumentations_does(image: np.ndarray, written: dict[str, float]) -> None:
    """Over 3,000 draws the mean of every pixel is the same within a grey level and five standard errors, the spread of
    pixels within 5 %, the spread of the whole image's brightness within 5 % and half a grey level."""
    draws = 3000
    change = augmenter(steps(written), HEIGHT, WIDTH)
    one_by_one = np.stack([change(image, seed) for seed in range(draws)]).astype(np.float32)
    together = augmented(np.broadcast_to(image, (draws, *image.shape)), written, list(range(draws))).astype(np.float32)
    by_chance = 5 * np.sqrt((one_by_one.var(axis=0) + together.var(axis=0)) / draws)
    assert (np.abs(together.mean(axis=0) - one_by_one.mean(axis=0)) < 1 + by_chance).all()
    spread, expected = (images.std(axis=0).mean(axis=(0, 1)) for images in (together, one_by_one))
    assert expected.min() > 1 and np.allclose(spread, expected, rtol=0.05)
    spread, expected = (images.mean(axis=(1, 2)).std(axis=0) for images in (together, one_by_one))
    assert np.allclose(spread, expected, rtol=0.05, atol=0.5)


def test_the_steps_of_an_image_are_drawn_apart() -> None:
    drawn = draw_changes(steps({"hflip": 0.5, "erase": 0.5, "colour": 0.5}), list(range(2000)), HEIGHT, WIDTH)
    (_, matrices), (_, rectangles), (_, factors) = drawn
    numbers = np.column_stack([matrices[:, 0, 0], rectangles[:, 1] > rectangles[:, 0], factors])
    assert np.abs(np.corrcoef(numbers.T) - np.eye(6)).max() < 0.1
    lowest, highest = [0.5, 0.5, 0.5, -1 / 16], [1.5, 1.5, 1.5, 1 / 16]
    assert np.allclose(factors.min(axis=0), lowest, atol=0.005) and (factors >= lowest).all()
    assert np.allclose(factors.max(axis=0), highest, atol=0.005) and (factors <= highest).all()


def test_an_image_is_changed_alike_in_whatever_batch_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {"crop": 0.3, "hflip": 0.5, "rotate": 0.1, "colour": 0.4, "erase": 0.7}
    images = np.stack([picture(WIDTH, HEIGHT, seed=number) for number in range(16)])
    seeds = [3**number for number in range(16)]
    whole = augmented(images, written, seeds)
    for size in (1, 4, 5):
        parts = [slice(start, start + size) for start in range(0, 16, size)]
        assert np.array_equal(np.concatenate([augmented(images[part], written, seeds[part]) for part in parts]), whole)
    monkeypatch.setattr(device_augmentation, "_PIXELS_AT_ONCE", 3 * HEIGHT * WIDTH)
    assert np.array_equal(augmented(images, written, seeds), whole)
    assert not np.array_equal(augmented(images, written, seeds[::-1]), whole)


def test_changes_come_in_the_order_in_which_they_are_written() -> None:
    images, seeds = np.stack([picture(WIDTH, HEIGHT, seed=number) for number in range(8)]), list(range(8))
    assert np.array_equal(augmented(images, {"hflip": 1}, seeds), images[:, :, ::-1])
    for step in ("crop", "rotate"):
        alone = augmented(images, {step: 0.3}, seeds)
        mirrored = augmented(images, [{step: 0.3}, {"hflip": 1}], seeds)
        assert np.abs(mirrored.astype(int) - alone[:, :, ::-1]).max() <= 1
        assert not np.array_equal(augmented(images, [{"hflip": 1}, {step: 0.3}], seeds), mirrored)
    kinds = [kind for kind, _ in draw_changes(steps([dict.fromkeys(DEVICE_STEPS, 0.5), "light"]), seeds, 32, 24)]
    assert kinds == ["geometry", "colour", "erase", "geometry", "colour"]
    assert draw_changes(steps(["none", {"hflip": 0}]), seeds, 32, 24) == []


def test_a_turn_of_the_hue_is_that_of_hsv() -> None:
    colours = [*np.random.Generator(np.random.Philox(1)).integers(0, 256, (200, 3)).tolist(), [9, 9, 9], [0, 0, 0]]
    batch = torch.tensor(colours, dtype=torch.float32).view(-1, 3, 1, 1)
    for turns in (-0.3, 0.0, 0.05, 0.7):
        shifted = device_augmentation._shift_hue(batch, torch.full((len(batch), 1, 1, 1), turns))
        for (red, green, blue), found in zip(colours, shifted.view(-1, 3).tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
            expected = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
            assert np.allclose(found, np.multiply(expected, 255), atol=0.01)


def test_noise_fills_one_rectangle_of_each_image_and_no_two_alike() -> None:
    grey = np.full((300, HEIGHT, WIDTH, 3), 100, np.uint8)
    changed = augmented(grey, {"erase": 1}, list(range(300))) != grey
    noise = augmented(grey, {"erase": 1}, list(range(300)))[changed.any(axis=3)]
    assert abs(noise.mean() - 127.5) < 1 and abs(noise.std() - 73.9) < 1
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.02
    areas = []
    for one in changed.any(axis=3):
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        areas.append((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9  # noise may be 100 as well
    assert 0.01 < min(areas) / (HEIGHT * WIDTH) < 0.03 and 0.15 < max(areas) / (HEIGHT * WIDTH) < 0.22
