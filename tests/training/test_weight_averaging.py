"""Averages of weights."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.utils import ModelEmaV3
from torch import nn

from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.training.weight_averaging import (
    clone_state,
    ema_weight,
    lerp_,
    model_soup,
    recompute_batchnorm,
    swa_starts,
    with_weights,
)
from support.tiny_member import LABEL_SPACE, recipe


def state(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 2), value), "batches": torch.tensor(int(value))}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_soup_is_the_mean(values: list[float]) -> None:
    mean = model_soup([state(value) for value in values])
    assert torch.allclose(mean["w"], torch.tensor(sum(values) / len(values)), atol=1e-3)
    assert mean["batches"] == int(values[-1])


def test_blending_moves_a_share_of_the_way_and_takes_counters_over() -> None:
    average, newest = state(0.0), state(8.0)
    lerp_(average, newest, 0.25)
    assert torch.equal(average["w"], torch.full((3, 2), 2.0))
    assert average["batches"] == 8
    assert torch.equal(newest["w"], torch.full((3, 2), 8.0))


def test_the_exponential_average_forgets_the_first_weights_soon() -> None:
    weights = [ema_weight(0.99, updates) for updates in range(2000)]
    assert weights[0] == pytest.approx(0.9)
    assert all(later <= sooner for sooner, later in pairwise(weights))
    assert weights[-1] == pytest.approx(0.01)


def test_a_warm_up_as_in_timm_is_that_of_timm() -> None:
    theirs = ModelEmaV3(nn.Linear(1, 1), decay=0.97, use_warmup=True)
    for updates in (0, 1, 2, 10, 100, 300, 10_000):
        assert ema_weight(0.97, updates, "timm") == pytest.approx(1 - theirs.get_decay(updates + 1), abs=1e-12)
    assert ema_weight(0.97, 0, "timm") == 1 and ema_weight(0.97, 10_000, "timm") == pytest.approx(0.03)


def test_other_weights_are_there_for_the_block_only() -> None:
    model = nn.Linear(2, 2)
    own = clone_state(model.state_dict())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    with pytest.raises(RuntimeError, match="inside"), with_weights(model, zeros):
        assert not model.weight.any()
        raise RuntimeError("inside")
    assert torch.equal(model.weight, own["weight"])


class Net(nn.Module):
    """Batch normalisation before and behind dropout, and one within the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))

    def get_classifier(self) -> nn.Module:
        return self.head


def cpu(dtype: torch.dtype = torch.float32) -> Device:
    return Device(torch.device("cpu"), dtype, torch.contiguous_format)


IMAGES = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 5 + 7


def test_statistics_are_the_mean_over_the_parts_in_which_batches_go_through_the_net() -> None:
    model = Net()
    recompute_batchnorm(model, iter(IMAGES.split(10)), 5, False, cpu())
    assert torch.allclose(model.body[0].running_mean, IMAGES.mean((0, 2, 3)), atol=1e-4)
    of_pairs = torch.stack([pair.var((0, 2, 3)) for pair in IMAGES.split(2)]).mean(dim=0)
    assert torch.allclose(model.body[0].running_var, of_pairs, rtol=1e-4)
    assert not torch.allclose(of_pairs, IMAGES.var((0, 2, 3)), rtol=1e-3)
    assert model.body[0].momentum == 0.1 and not any(module.training for module in model.modules())


def test_nothing_is_dropped_or_drawn_for_statistics() -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = Net().train()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        recompute_batchnorm(model, IMAGES.split(10), 1, False, cpu())
        assert torch.equal(torch.get_rng_state(), before)
        found.append(clone_state(model.state_dict()))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_statistics_of_a_frozen_backbone_stay() -> None:
    model = Net()
    before = clone_state(model.state_dict())
    recompute_batchnorm(model, IMAGES.split(10), 1, True, cpu())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"head.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_statistics_are_of_the_runs_own_precision() -> None:
    model, seen = Net(), []
    model.body[1].register_forward_hook(lambda _module, _images, output: seen.append(output.dtype))
    recompute_batchnorm(model, IMAGES.split(10), 1, False, cpu(torch.bfloat16))
    assert set(seen) == {torch.bfloat16}


def test_what_a_net_keeps_of_its_weights_in_evaluation_mode_is_that_of_the_weights_loaded() -> None:
    asked = recipe(net="levit_128s", size="32x32")
    model, other = (build_model(asked, LABEL_SPACE, seed).eval() for seed in (1, 2))
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for attention in model.modules():  # drawn as zeros
            if hasattr(attention, "attention_biases"):
                attention.attention_biases.fill_(3.0)
        own, wanted = model(images), other(images)
        with with_weights(model, clone_state(other.state_dict())):
            assert torch.equal(model(images), wanted)
        assert torch.equal(model(images), own) and not torch.equal(own, wanted)


def test_the_stochastic_average_begins_at_its_share_of_the_epochs_and_never_without_it() -> None:
    assert swa_starts(recipe(epochs=8, swa=0.75)) == 6
    assert swa_starts(recipe(epochs=3, swa=0.99)) == 2
    assert swa_starts(recipe(epochs=3)) == 3
