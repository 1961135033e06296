"""The sheet of a training batch: that it shows what training sees, and that it can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.report.augmentation_preview import draw_sheet, first_batch, write_preview
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import fold_rows, read_folds
from foldvote.training.dataloader import AugmentedImages, EpochOrder, ResumableSampler, training_loader
from foldvote.training.device_augmentation import augmented
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

DRAWS = MemberSeeds(5, "tiny", 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def trained_on(tiny: Tiny, augment: str, on_device: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The first images and codes that a training of this member gets from its loader."""
    pixels = PackedImages(tiny.pixels)
    training, _ = fold_rows(read_folds(tiny.split.folds, tiny.split.certificate)[0], DRAWS.fold)
    ids, codes = training["image_id"].tolist(), training["label"].to_numpy(np.int64)
    steps = recipe(augment=augment).augment
    images = AugmentedImages(pixels, pixels.rows(ids), ids, codes, steps, DRAWS, on_device=on_device)
    loader = training_loader(images, ResumableSampler(EpochOrder(DRAWS, len(ids), 8), 1, (0, 0)), 0, pin=False)
    batch, targets = next(augmented(loader, torch.device("cpu")))
    return batch.numpy(), targets.numpy()


# --- the batch


@pytest.mark.parametrize(("augment", "augment_on"), [("heavy", "loader"), ("light", "device")])
def test_the_batch_is_the_first_one_that_training_gets(tiny: Tiny, augment: str, augment_on: str) -> None:
    asked = recipe(augment=augment, augment_on=augment_on)
    before, after, shares, classes = first_batch(asked, tiny.pixels, tiny.split, DRAWS)
    images, codes = trained_on(tiny, augment, augment_on == "device")
    assert classes == LABEL_SPACE.classes and np.array_equal(after, images)
    assert np.array_equal(shares, np.eye(3, dtype=np.float32)[codes])
    assert np.array_equal(before, trained_on(tiny, "none")[0]) and not np.array_equal(before, after)


def test_a_mixed_batch_is_shown_mixed_with_the_shares_of_its_classes(tiny: Tiny) -> None:
    mixed = recipe(augment="none", mix=[{"name": "mixup", "alpha": 10}])
    before, after, shares, _ = first_batch(mixed, tiny.pixels, tiny.split, DRAWS)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    several = (shares > 0.01).sum(axis=1) > 1
    assert several.any() and not np.array_equal(before[several], after[several])
    assert before.shape == after.shape == (8, 32, 24, 3) and after.dtype == np.uint8


def test_images_of_a_group_that_are_mixed_stay_of_its_class(tiny: Tiny) -> None:
    mixed = recipe(augment="none", group_shots=2, mix=[{"name": "mixup", "alpha": 10, "partner": "group"}])
    before, after, shares, _ = first_batch(mixed, tiny.pixels, tiny.split, DRAWS)
    assert not np.array_equal(before, after) and np.array_equal(np.sort(shares, axis=1), [[0, 0, 1]] * 8)


def test_the_sheet_is_written_whole_and_is_the_same_again(tiny: Tiny, tmp_path: Path) -> None:
    first, again = tmp_path / "new/sheet.png", tmp_path / "again.png"
    for path in (first, again):
        write_preview(recipe(augment="heavy", mix="half_face"), tiny.pixels, tiny.split, DRAWS, path, images=5)
    assert first.read_bytes() == again.read_bytes() and [one.name for one in first.parent.iterdir()] == ["sheet.png"]
    with Image.open(first) as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB"


def test_pixels_of_another_size_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was packed from other size"):
        write_preview(recipe(size="64x48"), tiny.pixels, tiny.split, DRAWS, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


# --- the sheet


def sheet_of(count: int, height: int, width: int, caption: list[str]) -> np.ndarray:
    """A sheet of pure red images beside pure blue ones."""
    red, blue = (np.broadcast_to(np.uint8(colour), (count, height, width, 3)) for colour in ([255, 0, 0], [0, 0, 255]))
    return np.asarray(draw_sheet(["a title", "a note"], np.array(red), np.array(blue), [caption] * count))


def area(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(32, 24, (128, 96)), (128, 96, (128, 96)), (512, 384, (256, 192)), (300, 40, (256, 34)), (20, 60, (120, 360))],
)
@pytest.mark.parametrize("count", [1, 4, 6])
def test_all_images_are_shown_whole_and_captions_hide_none(
    height: int, width: int, shown: tuple[int, int], count: int
) -> None:
    sheet = sheet_of(count, height, width, ["70% incorrect-female-30to59", "30% wear-male-60plus"])
    assert area(sheet, (255, 0, 0)) == area(sheet, (0, 0, 255)) == count * shown[0] * shown[1]


@pytest.mark.parametrize("name", ["red", "incorrect-female-30to59", "x" * 300])
def test_captions_stay_below_their_own_pair_and_on_the_sheet(name: str) -> None:
    """Ink lies below the images only, and the margins between two pairs are free of it."""
    sheet = sheet_of(8, 32, 24, [name, f"40% {name}"])
    red = np.flatnonzero((sheet == (255, 0, 0)).all(axis=-1).any(axis=0))
    starts = [red[0], *red[1:][np.diff(red) > 1]]
    below = sheet[np.flatnonzero((sheet == (255, 0, 0)).all(axis=-1).any(axis=1))[0] :]
    ink = (below.max(axis=-1) < 130).any(axis=0)
    assert len(starts) == 4 and ink.any()
    assert not any(ink[start - 10 : start].any() for start in starts) and not ink[-10:].any()


def test_titles_fit_on_a_narrow_sheet() -> None:
    image = np.zeros((1, 32, 24, 3), np.uint8)
    narrow = draw_sheet(["t"], image, image, [["red"]])
    wide = np.asarray(draw_sheet(["a long title " * 8, "t"], image, image, [["red"]]))
    assert wide.shape[1] > narrow.width + 300 and (wide[:, -10:] == 255).all()
