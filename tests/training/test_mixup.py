"""Mixes of a batch: what comes from whom, and in which shares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.mixes import Mix
from foldvote.training.mixup import mix_batch, plan_mix
from support.tiny_member import recipe

seeds = st.integers(0, 2**63 - 1)


def mixes(*given_mixes: object) -> list[Mix]:
    return recipe(mix=list(given_mixes), group_shots=2).mix


def batch(size: int = 8, height: int = 10, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image is its own number everywhere, and its own class."""
    numbers = torch.arange(size, dtype=torch.float32)
    return numbers.view(-1, 1, 1, 1).expand(size, 3, height, width).clone(), torch.eye(size)


@given(seeds, st.sampled_from(["mixup", "cutmix", "half_face"]))
@settings(deadline=None)
def test_targets_are_the_shares_of_the_images_to_the_pixel(seed: int, name: str) -> None:
    images, targets = batch()
    mixed, shares = mix_batch(mixes(name), images, targets, seed)
    assert torch.allclose(shares.sum(dim=1), torch.ones(8), atol=1e-6)
    assert (shares >= 0).all()
    means = mixed.mean(dim=(1, 2, 3))
    assert torch.allclose(means, shares @ torch.arange(8.0), atol=1e-4)
    again = mix_batch(mixes(name), images, targets, seed)
    assert torch.equal(mixed, again[0])
    assert torch.equal(shares, again[1])
    assert torch.equal(images, batch()[0])


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_half_faces_keep_their_left_half_and_take_their_right_from_one_other(seed: int) -> None:
    images, targets = batch()
    mixed, _ = mix_batch(mixes("half_face"), images, targets, seed)
    assert torch.equal(mixed[..., :3], images[..., :3])
    right = mixed[..., 3:]
    assert (right == right[:, :1, :1, :1]).all()
    assert sorted(right[:, 0, 0, 0].tolist()) == list(range(8))


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_cutmix_holds_pixels_of_two_images_and_no_others(seed: int) -> None:
    images, targets = batch()
    mixed, shares = mix_batch(mixes("cutmix"), images, targets, seed)
    for place in range(8):
        seen = set(mixed[place].unique().int().tolist())
        assert seen <= set(shares[place].nonzero().flatten().tolist())


def test_at_most_one_mix_is_taken_and_each_about_as_often_as_asked() -> None:
    images, targets = batch()
    chosen = mixes({"name": "half_face", "p": 0.3}, {"name": "mixup", "alpha": 1.0, "p": 0.4})
    kinds = {"none": 0, "half": 0, "mixup": 0}
    for seed in range(2000):
        mixed, _ = mix_batch(chosen, images, targets, seed)
        if mixed is images:
            kinds["none"] += 1
        else:
            kinds["half" if torch.equal(mixed[..., :3], images[..., :3]) else "mixup"] += 1
    assert kinds["none"] / 2000 == pytest.approx(0.3, abs=0.04)
    assert kinds["half"] / 2000 == pytest.approx(0.3, abs=0.04)


def test_no_mix_gives_the_very_batch_and_the_memory_layout_stays() -> None:
    images, targets = batch()
    assert mix_batch([], images, targets, 1) == (images, targets)
    last = images.contiguous(memory_format=torch.channels_last)
    for name in ("mixup", "cutmix", "half_face"):
        mixed, _ = mix_batch(mixes(name), last, targets, 3)
        assert mixed.is_contiguous(memory_format=torch.channels_last)


@given(seeds, st.sampled_from(["mixup", "cutmix", "half_face"]))
@settings(deadline=None)
def test_what_teachers_say_is_mixed_as_the_labels_are(seed: int, name: str) -> None:
    images, labels = batch()
    taught = torch.softmax(labels.flip(1) * 3, dim=1)
    mixed, both = mix_batch(mixes(name), images, torch.cat([labels, taught], dim=1), seed)
    alone = mix_batch(mixes(name), images, labels, seed)
    assert torch.equal(mixed, alone[0])
    assert torch.equal(both[:, :8], alone[1])
    assert torch.allclose(both[:, 8:], alone[1] @ taught, atol=1e-6)


@given(seeds, st.sampled_from(["mixup", "cutmix", "half_face"]), st.lists(st.integers(0, 3), min_size=8, max_size=8))
@settings(deadline=None)
def test_partners_of_a_group_are_all_others_of_it_once_and_its_number_stays(
    seed: int, name: str, groups: list[int]
) -> None:
    images, labels = batch()
    numbers = np.array(groups, np.float32)
    plan = plan_mix(mixes({"name": name, "partner": "group"}), 8, 10, 7, seed, numbers)
    assert plan is not None and sorted(plan.order) == list(range(8))
    assert (numbers[plan.order] == numbers).all()
    alone = np.bincount(groups, minlength=4)[groups] == 1
    assert ((plan.order == np.arange(8)) == alone).all()
    targets = torch.cat([labels, torch.from_numpy(numbers)[:, None]], dim=1)
    mixed, shares = mix_batch(mixes({"name": name, "partner": "group"}), images, targets, seed, numbers)
    assert torch.equal(shares[:, -1], targets[:, -1])
    assert torch.equal(mixed[alone], images[alone]) and torch.equal(shares[alone], targets[alone])
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), shares[:, :8] @ torch.arange(8.0), atol=1e-4, rtol=0)


@given(seeds, st.sampled_from(["mixup", "half_face"]))
@settings(deadline=None)
def test_an_image_of_two_groups_is_of_none(seed: int, name: str) -> None:
    images, labels = batch()
    numbers = np.repeat(np.arange(0, 8, 2), 2).astype(np.float32)  # half of 0 and half of 4 would be 2
    targets = torch.cat([labels, torch.from_numpy(numbers)[:, None]], dim=1)
    plan = plan_mix(mixes(name), 8, 10, 7, seed, numbers)
    mixed, shares = mix_batch(mixes(name), images, targets, seed, numbers)
    expected = np.where(numbers[plan.order] == numbers, numbers, -1)
    assert shares[:, -1].tolist() == expected.tolist()
    plain = mix_batch(mixes(name), images, labels, seed)
    assert torch.equal(mixed, plain[0]) and torch.equal(shares[:, :-1], plain[1])
