"""Averages of weights."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foldvote.training.weight_averaging import (
    clone_state,
    ema_weight,
    lerp_,
    model_soup,
    recompute_batchnorm,
    swa_starts,
    with_weights,
)
from support.tiny_member import recipe


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


def test_other_weights_are_there_for_the_block_only() -> None:
    model = nn.Linear(2, 2)
    own = clone_state(model.state_dict())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    with pytest.raises(RuntimeError, match="inside"), with_weights(model, zeros):
        assert not model.weight.any()
        raise RuntimeError("inside")
    assert torch.equal(model.weight, own["weight"])


def test_statistics_are_those_of_the_images_given() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    images = torch.randn(40, 3, 4, 4) * 5 + 7
    recompute_batchnorm(model, iter(images.split(10)))
    assert torch.allclose(model[0].running_mean, images.mean((0, 2, 3)), atol=1e-4)


def test_the_stochastic_average_begins_at_its_share_of_the_epochs_and_never_without_it() -> None:
    assert swa_starts(recipe(epochs=8, swa=0.75)) == 6
    assert swa_starts(recipe(epochs=3, swa=0.99)) == 2
    assert swa_starts(recipe(epochs=3)) == 3
