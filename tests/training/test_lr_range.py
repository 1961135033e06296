"""The learning-rate range test: rates that grow, a run that ends where it diverges, and what it suggests."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training import lr_range
from foldvote.training.lr_range import measure_lr_range, suggested_rates
from foldvote.training.state import MemberSpec, build_spec
from foldvote.training.training_set import MemberInputs
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    save_file(build_model(recipe(), LABEL_SPACE, 5).state_dict(), made.root / "given.safetensors")
    return made


def spec_of(tiny: Tiny, given: Path | None = None, **changes: object) -> MemberSpec:
    inputs = MemberInputs(tiny.pixels, tiny.split, given)
    return build_spec(MemberSeeds(1, "tiny", 0), recipe(**changes), "", inputs)


def test_rates_grow_by_one_factor_and_the_loss_falls_before_it_rises(tiny: Tiny) -> None:
    table = measure_lr_range(spec_of(tiny, optimizer="sgd", clip_norm=None), CPU, 0)
    assert table["lr"].iloc[0] == pytest.approx(1e-7) and table["lr"].iloc[-1] <= 10
    factors = [later / sooner for sooner, later in pairwise(table["lr"])]
    assert np.allclose(factors, factors[0]) and table["step"].tolist() == list(range(1, len(table) + 1))
    assert table["smoothed"].min() < 0.9 * table["smoothed"].iloc[10]
    suggested = suggested_rates(table)
    assert suggested is not None and 1e-4 < suggested.peak < 1
    assert table.equals(measure_lr_range(spec_of(tiny, optimizer="sgd", clip_norm=None), CPU, 1))


def test_it_ends_where_the_loss_diverges(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lr_range, "HIGHEST", 1e6)
    diverging = {"net": "test_efficientnet_gn", "optimizer": "sgd", "clip_norm": None}
    table = measure_lr_range(spec_of(tiny, **diverging), CPU, 0)
    assert 10 < len(table) < 100 and np.isfinite(table["loss"]).all()


def test_a_frozen_backbone_stays_as_a_training_begins_with_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def new_state(*arguments: object) -> object:
        made.append(whole(*arguments))
        return made[-1]

    whole = lr_range.new_state
    monkeypatch.setattr(lr_range, "new_state", new_state)
    given = tiny.root / "given.safetensors"
    measure_lr_range(spec_of(tiny, given, pretrained="given", freeze_epochs=1, head_lr_factor=10.0), CPU, 0, steps=12)
    model = made[0].model
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {"fc.weight", "fc.bias"}
    assert max(group["lr"] for group in made[0].optimizer.param_groups) == pytest.approx(100)


def table_of(smoothed: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"lr": np.geomspace(1e-7, 10, len(smoothed)), "smoothed": smoothed})


def test_what_is_suggested_lies_before_the_lowest_loss() -> None:
    places = np.linspace(-7, 1, 100)
    valley = 2 - 1 / (1 + np.exp(-4 * (places + 3))) + np.maximum(places + 1, 0) ** 2
    suggested = suggested_rates(table_of(valley))
    assert suggested is not None
    assert suggested.steepest == pytest.approx(1e-3, rel=0.2)
    assert suggested.peak == pytest.approx(1e-7 * 10 ** (8 * valley.argmin() / 99) / 10)


def test_nothing_is_suggested_where_the_loss_never_falls() -> None:
    assert suggested_rates(table_of(np.linspace(1, 2, 100))) is None
    assert suggested_rates(table_of(np.linspace(2, 1, 15))) is None
