"""Test-time views: their names, what they do to images, and what predictions make of them."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import foldvote
from foldvote.config.tta import Predict, TtaStep, checked_views, parsed, view_faults, view_name
from foldvote.config.validation_errors import readable_errors
from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import move_of, pixels_changed, ready_views
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.seeding import derive
from support.tiny_member import SCHEME, Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
GAMMA = {"name": "gamma", "steps": [{"RandomGamma": {"gamma_limit": [80, 80], "p": 1}}]}
NOISE = {"name": "noise", "steps": [{"GaussNoise": {"std_range": [0.2, 0.3], "p": 1}}]}
FIVE = [f"crop-{position}-90" for position in ("centre", "top-left", "top-right", "bottom-left", "bottom-right")]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    tiny: Tiny = make_tiny(tmp_path_factory.mktemp("tiny"))
    return PackedImages(tiny.pixels)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return build_model(recipe(), SCHEME, 1).eval()


def moved(name: str, images: torch.Tensor) -> torch.Tensor:
    return move_of(parsed(name))(images)


def faults(views: Any) -> list[str]:
    with pytest.raises(ValidationError) as error:
        Predict.model_validate({"views": views})
    return list(readable_errors("c.yaml", error.value, Predict))


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


def smooth(height: int = 48, width: int = 48) -> torch.Tensor:
    """Two images of slow waves, so that interpolation hardly changes them."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 2, width), indexing="ij")
    return torch.stack([torch.sin(x + y), torch.cos(x - y), torch.sin(2 * y)]).repeat(2, 1, 1, 1)


def coded(height: int = 20, width: int = 40) -> torch.Tensor:
    """One image whose values say where they are: row in the first channel, column in the second."""
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None]


# --- names


def test_the_five_crops_are_written_out_and_names_stay_plain_json() -> None:
    then = NOISE | {"then": "hflip"}
    views = Predict.model_validate({"views": ["identity", "five_crops", "rotate+8", GAMMA, then]}).views
    assert views == ["identity", *FIVE, "rotate+8", GAMMA, then]
    assert json.loads(Predict(views=views).model_dump_json())["views"] == views == checked_views(views)
    assert [view_name(view) for view in views][-3:] == ["rotate+8", "gamma", "noise"]
    assert Predict(views=["hflip+five_crops-80"]).views[4] == "hflip+crop-bottom-right-80"
    assert Predict().views == ["identity", "hflip"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("rotate-8", [("rotate", 352)]),
        ("hflip+rotate+8+clahe", [("hflip", 0), ("rotate", 8), ("clahe", 2)]),
        ("crop-top-left-87.5", [("crop-top-left", 87.5)]),
        ("darker-20+scale-85", [("brightness", -20), ("scale", 85)]),
        ("contrast-10+contrast+20", [("contrast", -10), ("contrast", 20)]),
    ],
)
def test_a_name_says_its_parts(name: str, parts: list[tuple[str, float]]) -> None:
    assert parsed(name) == tuple(TtaStep(*part) for part in parts)


@pytest.mark.parametrize(
    ("views", "told"),
    [
        (["hflp"], "no view 'hflp'; did you mean 'hflip'?"),
        (["identity", "crop-center-80"], "no view 'crop-center-80'; did you mean 'crop-centre-80'?"),
        (["rotate8"], "no view 'rotate8'; did you mean 'rotate-8'?"),
        (["hflip+brigther-5"], "no view 'brigther-5'; did you mean 'brighter-5'?"),
        (["five_crop"], "no view 'five_crop'; did you mean 'five_crops'?"),
        (["xyz"], "no view 'xyz' (known: identity, hflip, "),
        (["crop-centre-5"], "crop-centre-5: its number must be from 10 to 99"),
        (["five_crops-5"], "crop-centre-5: its number must be from 10 to 99"),
        (["scale-100"], "scale-100: changes nothing; write identity"),
        (["rotate+0"], "rotate+0: changes nothing; write identity"),
        (["hflip+identity"], "hflip+identity: identity changes nothing; drop it"),
        (["hflip+hflip"], "hflip+hflip: says one thing twice"),
        (["hflip", "hflip"], "hflip stands twice; name each once"),
        (["five_crops", "crop-centre-90"], "crop-centre-90 stands twice"),
        (["rotate+270", "rotate-90"], "rotate+270 and rotate-90 are the same view"),
        (["hflip+clahe", "clahe-2+hflip"], "hflip+clahe and clahe-2+hflip are the same view"),
        ([GAMMA, GAMMA], "gamma stands twice"),
        ([{"steps": ["light"]}], "a view of steps needs a name of letters"),
        ([GAMMA | {"name": "a+b"}], "a view of steps needs a name of letters"),
        ([GAMMA | {"name": "rotate-8"}], "rotate-8: is a view without steps; choose another name"),
        ([{"name": "x"}], "x: its steps are missing"),
        ([GAMMA | {"step": 1}], "gamma: unknown key 'step'; did you mean 'steps'?"),
        ([GAMMA | {"then": "vflp"}], "gamma: then: no view 'vflp'; did you mean 'vflip'?"),
        ([GAMMA | {"then": "five_crops"}], "gamma: then: five_crops: stands for five views"),
        ([GAMMA | {"then": 3}], "gamma: then must be the name of a view such as hflip (it is 3)"),
        ([3], "must be names such as hflip, or mappings of name and steps (one is 3)"),
        ([], "needs at least 1 of them, has 0"),
        ("hflip", "must be a valid list (it is 'hflip')"),
    ],
)
def test_a_wrong_view_is_told_in_one_line(views: Any, told: str) -> None:
    (line,) = faults(views)
    assert line.startswith(f"c.yaml: views: {told}"), line


def test_all_wrong_views_are_told_at_once() -> None:
    assert len(faults(["hflp", "scale-3", "identity", "identity", GAMMA | {"then": "x"}])) == 4


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([{"RandomGama": {"p": 1}}], "x: RandomGama: no such policy, step or transform; did you mean 'RandomGamma'?"),
        ({"CLAHE": {"clip": 2}}, "x: CLAHE: no argument 'clip'; did you mean 'clip_limit'?"),
        ({"hflip": 2}, "x: steps: Input should be less than or equal to 1 (it is '2')"),
        ([5], "x: steps: "),
    ],
)
def test_unknown_transforms_and_arguments_are_told(steps: Any, told: str) -> None:
    (line,) = view_faults(checked_views([{"name": "x", "steps": steps}]), {})
    assert line.startswith(told) and "\n" not in line


def test_quarter_turns_are_told_of_models_that_are_not_square() -> None:
    views = ["rotate+90", "rotate+180", "rotate+89", GAMMA | {"then": "hflip+rotate-90"}]
    told = view_faults(views, {"a": "64x64", "b": "128x96"})
    assert told == [
        f"{name}: a quarter turn needs images as high as wide, and models.b has 128x96"
        for name in ("rotate+90", "gamma")
    ]
    assert view_faults(views, {"a": "64x64"}) == []


def test_names_are_checked_without_torch_and_albumentations() -> None:
    code = "import sys, foldvote.config.tta; print(*sys.modules.keys() & {'torch', 'albumentations'})"
    environment = os.environ | {"PYTHONPATH": str(Path(foldvote.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# --- moves


@pytest.mark.parametrize("name", ["hflip", "vflip", "rotate+180"])
def test_flips_and_half_turns_undo_themselves(name: str) -> None:
    images = torch.randn(2, 3, 5, 8)
    assert not torch.equal(moved(name, images), images)
    assert torch.equal(moved(name, moved(name, images)), images)
    assert torch.equal(moved("rotate+180", images), moved("hflip+vflip", images))
    assert moved("identity", images) is images


def test_turns_are_anticlockwise_and_small_ones_add_up() -> None:
    images = smooth()
    assert torch.equal(moved("rotate+90", images), torch.rot90(images, 1, (-2, -1)))
    assert torch.equal(moved("rotate-90", images), torch.rot90(images, -1, (-2, -1)))
    assert torch.allclose(moved("rotate+89.99", images), moved("rotate+90", images), atol=2e-2)
    assert torch.allclose(moved("rotate+0.01", images), images, atol=2e-3)
    middle = (..., slice(12, 36), slice(12, 36))
    there_and_back = moved("rotate-8", moved("rotate+8", images))
    assert torch.allclose(there_and_back[middle], images[middle], atol=1e-2)
    assert (moved("rotate+8", images) - images)[middle].abs().max() > 0.05


def test_a_turn_keeps_shapes_of_images_that_are_not_square() -> None:
    """A small disc at 9 o'clock goes to 6 o'clock, as far from the centre as before, whatever the sides."""
    rows, columns = np.mgrid[0:40, 0:60]
    disc = ((rows - 19.5) ** 2 + (columns - 14.5) ** 2 < 9).astype(np.float32)
    turned = moved("rotate+89.99", torch.from_numpy(disc).expand(1, 3, 40, 60))[0, 0].numpy()
    assert abs((rows * turned).sum() / turned.sum() - 34.5) < 0.1
    assert abs((columns * turned).sum() / turned.sum() - 29.5) < 0.1
    assert abs(turned.sum() / disc.sum() - 1) < 0.02


def test_turned_corners_are_mirrored_and_not_black() -> None:
    assert torch.allclose(moved("rotate+30", torch.ones(1, 3, 20, 30)), torch.ones(1, 3, 20, 30), atol=1e-6)


@pytest.mark.parametrize(
    ("position", "top", "left"),
    [
        ("centre", 5, 10),
        ("top-left", 0, 0),
        ("top", 0, 10),
        ("top-right", 0, 20),
        ("left", 5, 0),
        ("right", 5, 20),
        ("bottom-left", 10, 0),
        ("bottom", 10, 10),
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


@given(st.integers(1, 70), st.integers(1, 70), st.floats(10, 99).map(lambda share: f"{share:.1f}"))
@settings(max_examples=40, deadline=None)
def test_moves_keep_shape_and_range_of_any_image(height: int, width: int, share: str) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    for name in (f"crop-top-right-{share}", "scale-50", "scale-187", "rotate-33", "hflip+scale-85+rotate+5"):
        shown = moved(name, images)
        assert shown.shape == images.shape and shown.dtype == torch.float32
        assert shown.min() >= images.min() - 1e-5 and shown.max() <= images.max() + 1e-5


def test_zooms_are_about_the_centre_and_mirror_the_edge() -> None:
    images = coded(40, 40)
    near, far = moved("scale-200", images), moved("scale-50", images)
    assert torch.allclose(near[0, 0, 19:21, 0], torch.tensor([19.25, 19.75])) and near[0, 0].max() < 29.5
    assert torch.allclose(far[0, 0, 19:21, 0], torch.tensor([18.5, 20.5]), atol=1e-4)
    assert torch.equal(far[..., 9, :], far[..., 10, :]) and torch.equal(far[..., 8, :], far[..., 11, :])
    stripes = torch.tensor([0.0, 1.0]).repeat(20).expand(1, 3, 40, 40)
    shrunk = moved("scale-50", stripes)
    assert (shrunk - 0.5).abs().max() < 0.2  # antialiased: two stripes become grey, not one of them


def test_moves_are_the_same_under_autocast_and_in_any_batch() -> None:
    images = torch.rand(6, 3, 32, 24)
    for name in ("rotate+8", "scale-115", "scale-85", "crop-left-90", "hflip+rotate-8+crop-centre-90"):
        shown = moved(name, images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(moved(name, images), shown)
        assert torch.equal(torch.cat([moved(name, image[None]) for image in images]), shown)


# --- pixels


def photograph(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


def test_brightness_and_contrast_of_known_pixels() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    image[0, 0] = (0, 130, 250)
    brighter = pixels_changed(image, parsed("brighter-20")[0])
    darker = pixels_changed(image, parsed("darker-50")[0])
    assert brighter[0, 0].tolist() == [0, 156, 255] and brighter[1, 1].tolist() == [120, 120, 120]
    assert darker[0, 0].tolist() == [0, 65, 125] and darker.dtype == np.uint8
    grey = np.full((2, 2, 3), 100, np.uint8)
    grey[0] = 140
    assert pixels_changed(grey, parsed("contrast+50")[0])[:, 0, 0].tolist() == [150, 90]
    assert pixels_changed(grey, parsed("contrast-50")[0])[:, 0, 0].tolist() == [130, 110]


@pytest.mark.parametrize(("name", "clip"), [("clahe", 2.0), ("clahe-4", 4.0)])
def test_clahe_is_cv2s_own_on_the_lightness(name: str, clip: float) -> None:
    image = photograph()
    before = image.copy()
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lightness = cv2.createCLAHE(clipLimit=clip, tileGridSize=(8, 8)).apply(lab[..., 0].copy())
    wanted = cv2.cvtColor(np.dstack([lightness, lab[..., 1:]]), cv2.COLOR_LAB2RGB)
    assert np.array_equal(pixels_changed(image, parsed(name)[0]), wanted)
    assert np.array_equal(image, before) and not np.array_equal(image, wanted)


# --- predictions


def normalised(net: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(net.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std


def test_the_net_is_shown_what_the_name_says(pixels: PackedImages, net: torch.nn.Module) -> None:
    raw = np.stack([pixels[row] for row in range(20)])
    views = ["identity", "brighter-20", "hflip+clahe", GAMMA, GAMMA | {"name": "both", "then": "darker-10+vflip"}]
    shown = inputs(net, pixels, views, 8)
    gamma = np.stack([A.RandomGamma((80, 80), p=1)(image=image)["image"] for image in raw])
    wanted = {
        "identity": raw,
        "brighter-20": np.stack([pixels_changed(image, TtaStep("brightness", 20)) for image in raw]),
        "hflip+clahe": np.stack([pixels_changed(image, TtaStep("clahe", 2))[:, ::-1] for image in raw]),
        "gamma": gamma,
        "both": np.stack([pixels_changed(image, TtaStep("brightness", -10))[::-1] for image in gamma]),
    }
    for name, images in wanted.items():
        assert torch.allclose(shown[name], normalised(net, images.copy()), atol=1e-6), name
    assert torch.equal(shown["identity"], (normalised(net, raw)))


def test_steps_draw_by_view_and_image_whatever_the_batch(pixels: PackedImages, net: torch.nn.Module) -> None:
    views = [NOISE, NOISE | {"name": "other"}, {"name": "many", "steps": "heavy"}, "clahe+rotate+8", "hflip+scale-85"]
    alone = inputs(net, pixels, views, 1)
    together = inputs(net, pixels, views, 64)
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert not torch.equal(alone["noise"], alone["other"])
    backwards = inputs(net, pixels, [NOISE], 7, np.arange(20)[::-1])["noise"]
    assert torch.equal(backwards.flip(0), alone["noise"])
    change = A.Compose([A.GaussNoise(std_range=(0.2, 0.3), p=1)])
    change.set_random_seed(derive(0, "view", "noise", list(pixels.row_of)[3]) % 2**32)
    assert torch.allclose(alone["noise"][3:4], normalised(net, change(image=pixels[3])["image"][None]), atol=1e-6)


def test_f59_a_view_more_changes_no_other_and_no_image_is_read_twice(
    pixels: PackedImages, net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = ["clahe", "identity", NOISE, "hflip+clahe", "rotate-8"]
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
    assert list(together) == ["clahe", "identity", "noise", "hflip+clahe", "rotate-8"]
    assert all(np.array_equal(together[name], apart[name]) for name in apart)
    assert reads == Counter(range(30))
    assert len({logits.tobytes() for logits in together.values()}) == 5


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ("rotate-90", "predict.views: rotate-90: a quarter turn needs images as high as wide, and these have 32x24"),
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
    with pytest.raises(UserError) as refusal:
        predict_logits(net, pixels, np.arange(3), ready_views(["identity", view], *pixels.shape[:2]), CPU, 2)
    assert str(refusal.value).startswith(told) and "\n" not in str(refusal.value)


def test_a_wrong_name_is_an_error_of_the_caller(pixels: PackedImages, net: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="no view 'upside'"):
        predict_logits(net, pixels, np.arange(3), ready_views(["upside"], *pixels.shape[:2]), CPU, 2)
