"""What networks look at: which images are asked about, and that a heat lies where the class is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import nn

from foldvote.data.packed_images import PackedImages
from foldvote.inference.gradcam import _heatmaps, class_heat
from foldvote.inference.heatmaps import ATTENTION, MOST_RIGHT, ClassHeatmap, choose_images, heatmap_rows, read_heatmaps
from foldvote.io.parquet import write_table
from foldvote.models.factory import build_model
from foldvote.report.results.attention import overlay
from foldvote.runtime.device import Device
from support.tiny_member import LABEL_SPACE, make_tiny, recipe


class Colours(nn.Module):
    """Red or blue, less green, by the mean of each channel; the one stage is the image, in one of three shapes."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape, self.stage, self.patch_embed = shape, nn.Identity(), nn.Module()
        self.patch_embed.grid_size = (8, 6)
        self.feature_info = [{"module": "stage", "num_chs": 3, "reduction": 1}]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.shape == "maps":
            return self.answer(self.stage(images * 1).mean(dim=(2, 3)))
        if self.shape == "channels last":
            return self.answer(self.stage(images.permute(0, 2, 3, 1)).mean(dim=(1, 2)))
        patches = images.flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.ones_like(patches[:, :2]), patches], dim=1)  # two that are no patches
        return self.answer(self.stage(tokens).mean(dim=1))

    def answer(self, means: torch.Tensor) -> torch.Tensor:
        return means[:, [0, 2]] - means[:, [1]]


@pytest.mark.parametrize("shape", ["maps", "channels last", "tokens"])
def test_a_heat_lies_where_the_class_is(shape: str) -> None:
    image = torch.zeros(1, 3, 8, 6)
    image[:, 0, :3, :2] = 1  # red above left
    image[:, 2, 5:, 4:] = 2  # blue below right
    image[:, 1, :3, 4:] = 3  # green above right, which speaks against both
    heat = class_heat(Colours(shape).eval(), torch.cat([image, image, 0 * image]), torch.tensor([0, 1, 0]))
    assert heat is not None and heat.shape == (3, 8, 6)
    np.testing.assert_array_equal(heat[0], (image[0, 0] > 0).numpy())
    np.testing.assert_array_equal(heat[1], (image[0, 2] > 0).numpy())
    assert not heat[2].any()  # nothing speaks for the class


@pytest.mark.parametrize(
    ("net", "size", "cells"),
    [("test_resnet", (64, 48), (8, 6)), ("test_vit", (160, 160), (10, 10)), ("test_efficientnet", (128, 96), (4, 3))],
)
def test_nets_of_timm_have_maps_fine_enough(net: str, size: tuple[int, int], cells: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = timm.create_model(net, pretrained=False, num_classes=4).eval().requires_grad_(requires_grad=False)
    heat = class_heat(model, torch.randn(2, 3, *size), torch.tensor([1, 3]))
    assert heat is not None and min(heat.shape[1:]) >= 4 and heat.shape[1] >= cells[0]
    assert (heat >= 0).all() and heat.max(axis=(1, 2)).tolist() == [1, 1]
    assert not any(module._forward_hooks for module in model.modules())


def test_a_net_that_computes_activations_again_is_seen_through() -> None:
    torch.manual_seed(0)
    model, images = timm.create_model("test_resnet", pretrained=False, num_classes=4).eval(), torch.randn(2, 3, 64, 48)
    expected = class_heat(model, images.clone(), torch.tensor([1, 3]))
    model.set_grad_checkpointing(True)
    np.testing.assert_array_equal(class_heat(model, images.clone(), torch.tensor([1, 3])), expected)


def test_a_net_without_maps_says_nothing() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    assert class_heat(net, torch.randn(1, 3, 8, 8), torch.tensor([0])) is None


def test_heatmaps_that_do_not_fit_in_memory_are_made_of_fewer_images_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = PackedImages(make_tiny(tmp_path).pixels)
    model, cpu = (
        build_model(recipe(), LABEL_SPACE, 1),
        Device(torch.device("cpu"), torch.float32, torch.contiguous_format),
    )
    ids, codes = list(packed.row_of)[:20], np.arange(20) % 3
    whole = _heatmaps(model, packed, ids, codes, cpu, 256)
    sizes: list[int] = []

    def no_room(_model: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        sizes.append(len(inputs[0]))
        if sizes[-1] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(no_room)
    parts = _heatmaps(model, packed, ids, codes, cpu, 256)
    assert sizes == [20, 10, 5, 5, 5, 5] and "runtime.predict_batch: 5" in capfd.readouterr().err
    assert whole is not None and parts is not None and len(parts) == len(whole) == 20
    for one, other in zip(parts, whole, strict=True):
        np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)


def votes(persons: int) -> pd.DataFrame:
    """Persons of four shots; class 2 is rare; every fifth person is taken for another class."""
    rows = [
        {"image_id": f"{person:03d}/{shot}", "profile": f"{person:03d}", "fold": person % 3, "label": label}
        | {"prediction": (label + 1) % 3 if person % 5 == 0 else label, "sure": 0.5 + 0.001 * person + 0.01 * shot}
        for person in range(persons)
        for label in [2 if person % 29 == 1 else person % 2]
        for shot in range(4)
    ]
    frame = pd.DataFrame(rows)
    for code in range(3):
        frame[f"p_{code}"] = np.where(frame["prediction"] == code, frame["sure"], (1 - frame["sure"]) / 2)
    return frame.drop(columns="sure")


def test_mistakes_come_first_then_right_answers_of_every_class_and_each_person_once() -> None:
    frame = votes(60)
    chosen = choose_images(frame)
    wrong = chosen["prediction"] != chosen["label"]
    assert wrong.sum() == 12 and (~wrong).sum() == MOST_RIGHT and wrong.is_monotonic_decreasing
    assert chosen["image_id"].str[:3].is_unique and (chosen["image_id"].str[4:] == "3").all()  # the surest shot
    assert chosen["label"][~wrong].value_counts()[2] == 2  # both persons of the rare class who were told right
    assert chosen.equals(choose_images(frame.sample(frac=1, random_state=0)))
    assert len(choose_images(frame[frame["label"] == frame["prediction"]].head(4))) == 1


def test_a_glance_comes_back_as_it_was_written(tmp_path: Path) -> None:
    heat = np.arange(20, dtype=np.uint8).reshape(5, 4)
    glances = [ClassHeatmap("a|b", "m", 2, code, "마스크", heat + code) for code in (0, 7)]
    write_table(heatmap_rows(glances), tmp_path / "a.parquet", ATTENTION, ("image_id", "code"), {})
    for before, after in zip(glances, read_heatmaps(tmp_path / "a.parquet"), strict=True):
        assert (after.heat == before.heat).all()
        assert (after.image_id, after.model, after.fold, after.code) == ("a|b", "m", 2, before.code)
    write_table(heatmap_rows([]), tmp_path / "none.parquet", ATTENTION, ("image_id", "code"), {})
    assert read_heatmaps(tmp_path / "none.parquet") == []


def test_where_nothing_is_looked_at_a_picture_is_grey_and_elsewhere_coloured() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    heat = np.zeros((4, 3), np.uint8)
    plain = overlay(pixels, heat)
    assert plain.shape == pixels.shape and (plain == plain[..., :1]).all()
    heat[0, 0] = 255
    over = overlay(pixels, heat)
    assert (over[8:, 6:] == plain[8:, 6:]).all() and (over[:3, :3] != plain[:3, :3]).any()
