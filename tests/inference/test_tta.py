"""Test-time views: what they do to images, and what predictions make of them."""

from collections import Counter
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.tta import FIVE, NAMED_VIEWS, view_name
from foldvote.data.augmentation import step_seeds
from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import VIEWS, move_of, ready_views, resized
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.seeding import derive
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
GAMMA = {"name": "gamma", "steps": [{"RandomGamma": {"gamma_limit": [80, 80], "p": 1}}]}
NOISE = {"name": "noise", "steps": [{"GaussNoise": {"std_range": [0.2, 0.3], "p": 1}}]}
CLAHE = {"name": "clahe", "steps": [{"CLAHE": {"clip_limit": [2, 2], "p": 1}}]}
TURNED = {"name": "turned", "steps": [{"Affine": {"rotate": [8, 8], "border_mode": 2, "p": 1}}]}


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    tiny: Tiny = make_tiny(tmp_path_factory.mktemp("tiny"))
    return PackedImages(tiny.pixels)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return build_model(recipe(), LABEL_SPACE, 1).eval()


def moved(name: str, images: torch.Tensor) -> torch.Tensor:
    return move_of(name)(images)


def inputs(
    net: torch.nn.Module, pixels: PackedImages, views: list, batch_size: int, rows: Any = None
) -> dict[str, Any]:
    """What the net is shown under each view, by its name: (rows, 3, height, width)."""
    shown: list[torch.Tensor] = []
    hook = net.register_forward_pre_hook(lambda _, given: shown.append(given[0].clone()))
    rows = np.arange(20) if rows is None else rows
    # One view at a time, so that each picture that the net saw belongs to it.
    found = {}
    for view in views:
        shown.clear()
        predict_logits(net, pixels, rows, ready_views([view], *pixels.shape[:2]), CPU, batch_size)
        found[view_name(view)] = torch.cat(shown)
    hook.remove()
    return found


def coded(height: int = 20, width: int = 40) -> torch.Tensor:
    """One image whose values say where they are: row in the first channel, column in the second."""
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None]


# --- moves


def test_every_named_view_has_a_move() -> None:
    assert tuple(VIEWS) == NAMED_VIEWS


@pytest.mark.parametrize("name", ["hflip", "vflip", "rot180"])
def test_flips_and_half_turns_undo_themselves(name: str) -> None:
    images = torch.randn(2, 3, 5, 8)
    assert not torch.equal(moved(name, images), images)
    assert torch.equal(moved(name, moved(name, images)), images)
    assert torch.equal(moved("rot180", images), moved("hflip", moved("vflip", images)))
    assert moved("identity", images) is images


def test_quarter_turns_are_anticlockwise() -> None:
    images = torch.randn(2, 3, 6, 6)
    assert torch.equal(moved("rot90", images)[..., -1, 0], images[..., 0, 0])  # the left upper corner goes down
    assert torch.equal(moved("rot270", moved("rot90", images)), images)
    assert torch.equal(moved("rot90", moved("rot90", images)), moved("rot180", images))


@pytest.mark.parametrize(
    ("position", "top", "left"),
    [
        ("centre", 5, 10),
        ("top-left", 0, 0),
        ("top-right", 0, 20),
        ("bottom-left", 10, 0),
        ("bottom-right", 10, 20),
    ],
)
def test_a_crop_shows_its_part_in_the_whole_frame(position: str, top: int, left: int) -> None:
    shown = moved(f"crop-{position}-50", coded())
    assert shown.shape == (1, 3, 20, 40)
    rows, columns = shown[0, 0], shown[0, 1]
    assert (rows.min(), rows.max()) == (top, top + 9) and (columns.min(), columns.max()) == (left, left + 19)
    # Twice as large, pixel edges on pixel edges: inner pixels lie a quarter of a pixel beside the old centres.
    assert torch.allclose(rows[1:3, 5], torch.tensor([top + 0.25, top + 0.75]))
    assert torch.allclose(columns[5, 1:3], torch.tensor([left + 0.25, left + 0.75]))


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(FIVE), st.integers(10, 99))
@settings(max_examples=40, deadline=None)
def test_crops_keep_shape_and_range_of_any_image(height: int, width: int, position: str, percent: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    shown = moved(f"crop-{position}-{percent}", images)
    assert shown.shape == images.shape and shown.dtype == torch.float32
    assert shown.min() >= images.min() - 1e-5 and shown.max() <= images.max() + 1e-5


SIDES = st.integers(1, 60)


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_resizing_averages_areas_to_shrink_and_interpolates_to_enlarge(
    height: int, width: int, rows: int, columns: int
) -> None:
    image = np.random.default_rng(height).random((height, width, 3)).astype(np.float32)
    found = resized(torch.from_numpy(image).permute(2, 0, 1)[None], (rows, columns))[0].permute(1, 2, 0).numpy()
    assert found.shape == (rows, columns, 3) and found.dtype == np.float32
    if (rows <= height) == (columns <= width):
        how = cv2.INTER_AREA if rows <= height else cv2.INTER_LINEAR
        expected = cv2.resize(image, (columns, rows), interpolation=how)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert image.min() - 1e-5 <= found.min() and found.max() <= image.max() + 1e-5


def test_a_crop_of_larger_images_that_is_as_large_as_the_network_takes_is_their_own_pixels() -> None:
    images = torch.rand(2, 3, 40, 30)
    for position, top, left in (("centre", 4, 3), ("top-left", 0, 0), ("bottom-right", 8, 6)):
        shown = move_of(f"crop-{position}-80", (32, 24))(images)
        assert torch.equal(shown, images[..., top : top + 32, left : left + 24])


def test_views_of_larger_images_have_the_size_of_the_network_and_are_moved_alike() -> None:
    images = torch.rand(2, 3, 40, 40)
    plain = move_of("identity", (32, 32))(images)
    assert plain.shape == (2, 3, 32, 32)
    for name in NAMED_VIEWS:
        torch.testing.assert_close(move_of(name, (32, 32))(images), VIEWS[name](plain))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(move_of("identity", (32, 32))(images), plain)


def test_moves_are_the_same_under_autocast_and_in_any_batch() -> None:
    images = torch.rand(6, 3, 32, 24)
    for name in ("vflip", "rot180", "crop-top-right-80", "crop-centre-90"):
        shown = moved(name, images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(moved(name, images), shown)
        assert torch.equal(torch.cat([moved(name, image[None]) for image in images]), shown)


# --- predictions


def normalised(net: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(net.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std


def evened_out(image: np.ndarray) -> np.ndarray:
    """OpenCV's own equalisation of the lightness, in tiles, so that colours stay."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lightness = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab[..., 0].copy())
    return cv2.cvtColor(np.dstack([lightness, lab[..., 1:]]), cv2.COLOR_LAB2RGB)


def test_the_net_is_shown_what_the_name_says(pixels: PackedImages, net: torch.nn.Module) -> None:
    raw = np.stack([pixels[row] for row in range(20)])
    views = ["identity", "vflip", GAMMA, GAMMA | {"name": "both", "then": "hflip"}, CLAHE]
    shown = inputs(net, pixels, views, 8)
    gamma = np.stack([A.RandomGamma((80, 80), p=1)(image=image)["image"] for image in raw])
    wanted = {
        "vflip": raw[:, ::-1],
        "gamma": gamma,
        "both": gamma[:, :, ::-1],
        "clahe": np.stack([evened_out(image) for image in raw]),
    }
    for name, images in wanted.items():
        assert torch.allclose(shown[name], normalised(net, images.copy()), atol=1e-6), name
    assert torch.equal(shown["identity"], (normalised(net, raw)))


def test_steps_draw_by_view_and_image_whatever_the_batch(pixels: PackedImages, net: torch.nn.Module) -> None:
    views = [NOISE, NOISE | {"name": "other"}, {"name": "many", "steps": "heavy"}, TURNED, "crop-centre-90"]
    alone = inputs(net, pixels, views, 1)
    together = inputs(net, pixels, views, 64)
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert not torch.equal(alone["noise"], alone["other"])
    backwards = inputs(net, pixels, [NOISE], 7, np.arange(20)[::-1])["noise"]
    assert torch.equal(backwards.flip(0), alone["noise"])
    change = A.Compose([A.GaussNoise(std_range=(0.2, 0.3), p=1)])
    change.transforms[0].set_random_seed(step_seeds(derive(0, "view", "noise", list(pixels.row_of)[3]), 1)[0])
    assert torch.allclose(alone["noise"][3:4], normalised(net, change(image=pixels[3])["image"][None]), atol=1e-6)


def test_f59_a_view_more_changes_no_other_and_no_image_is_read_twice(
    pixels: PackedImages, net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [CLAHE, "identity", NOISE, CLAHE | {"name": "flipped", "then": "hflip"}, "crop-top-left-80"]
    rows = np.arange(30)
    apart = {
        view_name(view): predict_logits(net, pixels, rows, ready_views([view], *pixels.shape[:2]), CPU, 8)[
            view_name(view)
        ]
        for view in views
    }
    reads: Counter = Counter()
    read = PackedImages.__getitem__
    monkeypatch.setattr(PackedImages, "__getitem__", lambda own, row: (reads.update([int(row)]), read(own, row))[1])
    together = predict_logits(net, pixels, rows, ready_views(views, *pixels.shape[:2]), CPU, 8)
    assert list(together) == ["clahe", "identity", "noise", "flipped", "crop-top-left-80"]
    assert all(np.array_equal(together[name], apart[name]) for name in apart)
    assert reads == Counter(range(30))
    assert len({logits.tobytes() for logits in together.values()}) == 5


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ("rot270", "predict.views: rot270: a quarter turn needs images as high as wide, and these have 32x24; drop it"),
        (
            {"name": "small", "steps": {"Resize": {"height": 8, "width": 8}}},
            "predict.views: small: Resize: gives images",
        ),
        ({"name": "bad", "steps": {"RandomGamma": {"gamma_limit": [-5, 1]}}}, "predict.views: bad: RandomGamma: "),
        ({"name": "float", "steps": {"Normalize": {}}}, "predict.views: float: Normalize: gives a float32 array"),
    ],
)
def test_a_view_that_these_images_cannot_have_is_refused(
    pixels: PackedImages, net: torch.nn.Module, view: Any, told: str
) -> None:
    with pytest.raises(UserError) as error:
        predict_logits(net, pixels, np.arange(3), ready_views(["identity", view], *pixels.shape[:2]), CPU, 2)
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


def test_a_wrong_name_is_an_error_of_the_caller(pixels: PackedImages, net: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="no view 'upside'"):
        predict_logits(net, pixels, np.arange(3), ready_views(["upside"], *pixels.shape[:2]), CPU, 2)
