"""Losses: what they equal, what they prefer, and that they stay finite."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.training.losses import LossFunction, class_weights, consistency, distillation, make_loss, sup_con
from foldvote.training.mixup import mix_batch, plan_mix
from support.tiny_member import recipe

TERMS = ["cross_entropy", "focal", "soft_f1", "asymmetric", "ldam"]
COUNTS = np.array([50, 30, 15, 5])
seeds = st.integers(0, 2**31 - 1)


def batch(seed: int, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 4, generator=draw) * 3
    return logits, torch.softmax(torch.randn(size, 4, generator=draw) * 4, dim=1)


@given(seeds, st.floats(0, 0.9))
@settings(deadline=None, max_examples=30)
def test_cross_entropy_is_torchs_with_hard_and_with_soft_targets(seed: int, smoothing: float) -> None:
    logits, soft = batch(seed)
    labels = soft.argmax(dim=1)
    loss = make_loss(recipe(label_smoothing=smoothing), COUNTS)
    for given_targets, torchs in ((F.one_hot(labels, 4).float(), labels), (soft, soft)):
        assert torch.allclose(loss(logits, given_targets), F.cross_entropy(logits, torchs, label_smoothing=smoothing))


def test_focal_without_focus_is_cross_entropy_and_a_sum_adds_up() -> None:
    logits, targets = batch(3)
    plain, focal, f1, both = (
        make_loss(recipe(loss=loss), COUNTS)(logits, targets)
        for loss in (
            "cross_entropy",
            {"name": "focal", "gamma": 0},
            "soft_f1",
            ["cross_entropy", {"name": "soft_f1", "weight": 0.5}],
        )
    )
    assert torch.allclose(plain, focal)
    assert torch.allclose(both, plain + 0.5 * f1)


@pytest.mark.parametrize("term", TERMS)
def test_every_loss_falls_when_it_is_followed_down_hill(term: str) -> None:
    loss = make_loss(recipe(loss=term, label_smoothing=0.0), COUNTS)
    labels = torch.tensor([0, 1, 2, 3] * 3)
    logits = torch.zeros(12, 4, requires_grad=True)
    first = loss(logits, F.one_hot(labels, 4).float()).item()
    for _ in range(200):
        (slope,) = torch.autograd.grad(loss(logits, F.one_hot(labels, 4).float()), logits)
        logits = (logits - 5 * slope).detach().requires_grad_()
    assert loss(logits, F.one_hot(labels, 4).float()).item() < 0.5 * first
    assert torch.equal(logits.argmax(dim=1), labels)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("size", [1e4, 1e3, 0.0])
def test_losses_and_slopes_are_finite_at_the_ends(term: str, size: float) -> None:
    logits = torch.eye(4) * size - size / 2
    for targets in (torch.eye(4), torch.eye(4).roll(1, 0), torch.full((4, 4), 0.25)):
        at = logits.clone().requires_grad_()
        value = make_loss(recipe(loss=term), COUNTS)(at, targets)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(at.grad).all()


@given(seeds, st.sampled_from(TERMS), st.sampled_from(["none", "inverse", "effective"]))
@settings(deadline=None, max_examples=40)
def test_equal_parts_add_up_to_the_whole(seed: int, term: str, weights: str) -> None:
    logits, targets = batch(seed)
    loss = make_loss(recipe(loss=term, class_weights=weights), COUNTS)
    parts = [loss(*part) for part in zip(logits.split(3), targets.split(3), strict=True)]
    if term != "soft_f1":  # a score of the whole batch
        assert torch.allclose(torch.stack(parts).mean(), loss(logits, targets), atol=1e-5)
    joint = F.log_softmax(logits, dim=1)  # what factored heads give
    assert torch.allclose(loss(joint, targets), loss(logits, targets), atol=1e-4)


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=20).filter(any), st.sampled_from(["inverse", "effective"]))
@settings(deadline=None)
def test_class_weights_are_one_on_average_and_larger_for_the_rare(counts: list[int], kind: str) -> None:
    number = np.array(counts)
    weights = class_weights(kind, number)
    assert np.isclose(np.sum(weights * number) / np.sum(number), 1)
    assert (weights[number == 0] == 0).all()
    present = number > 0
    order = np.argsort(number[present], kind="stable")
    assert (np.diff(weights[present][order]) <= 1e-12).all()


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_a_class_of_soft_targets_alone_does_not_outweigh_all_else(kind: str) -> None:
    """300 images of two classes, and 100 pseudo-labelled ones that a first round gives 1e-4 of a third."""
    counts = np.array([249.98, 150.01, 0.01])
    weights = class_weights(kind, counts)
    assert np.isclose(np.sum(weights * counts) / np.sum(counts), 1)
    of_one = class_weights(kind, np.array([249.98, 150.01, 1]))
    np.testing.assert_allclose(weights / weights[0], of_one / of_one[0])
    assert weights[2] < 250


def test_rare_classes_have_the_wider_margin_and_the_larger_weight() -> None:
    even = torch.zeros(1, 4)
    rare, common = (F.one_hot(torch.tensor([code]), 4).float() for code in (3, 0))
    for changes in ({"loss": "ldam"}, {"class_weights": "inverse"}, {"class_weights": "effective"}):
        loss = make_loss(recipe(label_smoothing=0.0, **changes), COUNTS)
        assert loss(even, rare) > loss(even, common)


def test_distillation_is_the_divergence_by_hand_times_the_square_of_the_temperature() -> None:
    logits, taught = [[2.0, 0.0, -2.0], [0.0, 4.0, 2.0]], [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    by_hand = 0.0
    for row, targets in zip(logits, taught, strict=True):
        powers = [np.exp(value / 2) for value in row]
        by_hand += sum(p * np.log(p / (own / sum(powers))) for p, own in zip(targets, powers, strict=True) if p) / 2
    found = distillation(torch.tensor(logits), torch.tensor(taught), 2.0)
    assert found.item() == pytest.approx(2.0**2 * by_hand, rel=1e-6)
    same = torch.tensor(logits)
    assert distillation(same, torch.softmax(same / 5, dim=1), 5.0).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("term", TERMS)
def test_a_student_learns_labels_and_teachers_in_their_shares(term: str) -> None:
    logits, labels = batch(5)
    taught = torch.softmax(batch(6)[0], dim=1)
    changes: dict[str, object] = {"loss": term, "label_smoothing": 0.1, "class_weights": "inverse"}
    distill = {"models": ["teacher"], "temperature": 3, "weight": 0.25}
    found = make_loss(recipe(distill=distill, **changes), COUNTS)(logits, torch.cat([labels, taught], dim=1))
    usual = make_loss(recipe(**changes), COUNTS)(logits, labels)
    assert torch.allclose(found, 0.75 * usual + 0.25 * distillation(logits, taught, 3.0))


def test_the_square_of_the_temperature_keeps_the_size_of_slopes() -> None:
    slopes = []
    for temperature in (20.0, 80.0):
        logits = (batch(7)[0] - batch(7)[0].mean(dim=1, keepdim=True)).requires_grad_()
        taught = torch.softmax(batch(8)[0] / temperature, dim=1)
        (slope,) = torch.autograd.grad(distillation(logits, taught, temperature), logits)
        slopes.append(slope.norm().item())
    assert slopes[1] == pytest.approx(slopes[0], rel=0.1)


def test_a_weight_counts_as_that_many_images_by_hand() -> None:
    """Two images of weights 3 and 1, each twice as likely to be its own class as the other."""
    logits = torch.log(torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))
    wrong_second = torch.tensor([[3.0, 0.0], [1.0, 0.0]])  # labels 0 and 0, multiplied by the weights
    loss = make_loss(recipe(label_smoothing=0.0), np.array([2, 0]), weighted=True)
    expected = (3 * -np.log(2 / 3) + 1 * -np.log(1 / 3)) / 2
    assert loss(logits, wrong_second).item() == pytest.approx(expected, rel=1e-6)


@given(seeds, st.sampled_from(TERMS), st.sampled_from(["none", "inverse"]), st.floats(0, 0.5))
@settings(deadline=None, max_examples=40)
def test_weights_of_whole_numbers_are_copies_of_images(seed: int, term: str, weights: str, smoothing: float) -> None:
    logits, targets = batch(seed)
    times = torch.randint(1, 4, (len(logits),), generator=torch.Generator().manual_seed(seed))
    asked = recipe(loss=term, class_weights=weights, label_smoothing=smoothing)
    copies = make_loss(asked, COUNTS)(logits.repeat_interleave(times, 0), targets.repeat_interleave(times, 0))
    weighted = make_loss(asked, COUNTS, weighted=True)(logits, targets * times[:, None])
    if term != "soft_f1":  # a mean over the images, not over their weights; a score has no such factor
        weighted = weighted * len(logits) / times.sum()
    else:  # which classes are present is decided without weights
        copies = make_loss(asked, COUNTS, weighted=True)(
            logits.repeat_interleave(times, 0), targets.repeat_interleave(times, 0)
        )
    assert torch.allclose(weighted, copies, atol=1e-4)


@given(seeds, st.sampled_from(TERMS))
@settings(deadline=None, max_examples=20)
def test_weights_of_one_change_nothing(seed: int, term: str) -> None:
    logits, targets = batch(seed)
    losses = [make_loss(recipe(loss=term), COUNTS, weighted)(logits, targets) for weighted in (False, True)]
    assert torch.allclose(*losses, atol=1e-5)


def test_a_student_counts_images_by_their_weights_for_labels_and_teachers_alike() -> None:
    logits, labels = batch(5)
    taught, weights = torch.softmax(batch(6)[0], dim=1), torch.arange(1, len(logits) + 1) / 2
    asked = recipe(distill={"models": ["teacher"], "temperature": 3, "weight": 0.25})
    targets = torch.cat([labels, taught], dim=1)
    each = torch.stack(
        [make_loss(asked, COUNTS)(logits[at : at + 1], targets[at : at + 1]) for at in range(len(logits))]
    )
    found = make_loss(asked, COUNTS, weighted=True)(logits, targets * weights[:, None])
    assert torch.allclose(found, (each * weights).mean(), atol=1e-6)


def test_each_label_of_a_mixed_image_keeps_its_own_weight() -> None:
    draw = torch.Generator().manual_seed(5)
    images, logits = torch.rand(4, 3, 8, 8, generator=draw), torch.randn(4, 4, generator=draw)
    labels, weights = torch.eye(4)[[0, 1, 2, 1]], torch.tensor([0.5, 2.0, 1.0, 0.5])
    mixes = recipe(mix=[{"name": "mixup", "p": 1.0}]).mix
    plan = plan_mix(mixes, 4, 8, 8, 3)
    assert plan is not None
    _, mixed = mix_batch(mixes, images, labels * weights[:, None], 3)
    each = (
        F.cross_entropy(logits, labels, reduction="none"),
        F.cross_entropy(logits, labels[plan.order], reduction="none"),
    )
    expected = (plan.kept * weights * each[0] + (1 - plan.kept) * weights[plan.order] * each[1]).mean()
    loss = make_loss(recipe(label_smoothing=0.0), COUNTS, weighted=True)
    assert loss(logits, mixed).item() == pytest.approx(expected.item(), rel=1e-5)


def agreement(label_space: LabelSpace | None = None, **term: object) -> LossFunction:
    """The term `consistency` alone, as the difference that it makes."""
    both = recipe(loss=["cross_entropy", {"name": "consistency", **term}], group_shots=2)
    plain, counts = make_loss(recipe(), np.ones(6)), np.ones(6)
    grouped = make_loss(both, counts, label_space=label_space)
    return lambda logits, targets: grouped(logits, targets) - plain(logits, targets[:, :-1])


def test_consistency_is_the_divergence_from_the_mean_of_a_group_by_hand() -> None:
    space = factor_label_space({"mask": ("wear", "none"), "age": ("young", "middle", "old")})
    joint = np.array([[0.1, 0.2, 0.1, 0.3, 0.2, 0.1], [0.3, 0.1, 0.1, 0.3, 0.1, 0.1], [0.4, 0.1, 0.1, 0.2, 0.1, 0.1]])
    age = np.array([[0.4, 0.4, 0.2], [0.6, 0.2, 0.2]])  # of the first two, which are of one group
    mean = age.mean(axis=0)
    by_hand = sum((mean * np.log(mean / own)).sum() for own in age) / 3
    targets = torch.cat([torch.eye(6)[:3], torch.tensor([[7.0], [7.0], [2.0]])], dim=1)
    logits = torch.from_numpy(np.log(joint)).float() + 3  # of any height
    found = agreement(space, factors=["age"])(logits, targets)
    assert found.item() == pytest.approx(by_hand, rel=1e-4)
    assert agreement(space, factors=["age"], weight=0.5)(logits, targets).item() == pytest.approx(by_hand / 2, rel=1e-4)
    mask = agreement(space, factors=["mask"])(logits, targets).item()
    assert agreement(space, factors=["mask", "age"])(logits, targets).item() == pytest.approx(by_hand + mask, rel=1e-4)
    mean = joint[:2].mean(axis=0)
    by_hand = sum((mean * np.log(mean / own)).sum() for own in joint[:2]) / 3
    assert agreement()(logits, targets).item() == pytest.approx(by_hand, rel=1e-4)


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_consistency_compares_groups_alone_and_parts_of_whole_groups_add_up(seed: int) -> None:
    logits = torch.randn(12, 6, generator=torch.Generator().manual_seed(seed)) * 3
    labels, groups = torch.eye(6).repeat(2, 1), torch.arange(6.0).repeat_interleave(2)[:, None]
    term = agreement()
    whole = term(logits, torch.cat([labels, groups], dim=1))
    parts = [term(*part) for part in zip(logits.split(4), torch.cat([labels, groups], dim=1).split(4), strict=True)]
    assert whole.item() > 0 and torch.allclose(torch.stack(parts).mean(), whole, atol=1e-5)
    for alone in (torch.arange(12.0)[:, None], torch.full((12, 1), -1.0)):  # -1: mixed of several groups
        assert term(logits, torch.cat([labels, alone], dim=1)).item() == pytest.approx(0, abs=1e-5)


def test_consistency_followed_down_hill_makes_a_group_agree_on_its_mean() -> None:
    groups = torch.tensor([0.0, 0.0, 1.0, 1.0])
    logits = torch.tensor([[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0], [0, 0, 2.0]], requires_grad=True)
    before = torch.softmax(logits.detach(), dim=1)
    for _ in range(2000):
        (slope,) = torch.autograd.grad(consistency(logits, groups, torch.eye(3, dtype=torch.bool)), logits)
        logits = (logits - slope).detach().requires_grad_()
    after = torch.softmax(logits.detach(), dim=1)
    assert torch.allclose(after[0], after[1], atol=1e-3) and torch.allclose(after[2], after[3], atol=1e-3)
    assert torch.allclose(after[0], before[:2].mean(dim=0), atol=0.1) and after[2, 2] > 0.8


def test_consistency_counts_images_by_their_weights_and_comes_on_top_of_teachers() -> None:
    logits, labels = batch(5)
    taught, weights = torch.softmax(batch(6)[0], dim=1), torch.arange(1, len(logits) + 1) / 2
    groups = torch.arange(6.0).repeat_interleave(2)
    distill = {"models": ["teacher"], "temperature": 3, "weight": 0.25}
    asked = recipe(distill=distill, loss=["cross_entropy", "consistency"], group_shots=2)
    rows = torch.cat([labels, taught], dim=1) * weights[:, None]
    found = make_loss(asked, COUNTS, weighted=True)(logits, torch.cat([rows, groups[:, None]], dim=1))
    usual = make_loss(recipe(distill=distill), COUNTS, weighted=True)(logits, rows)
    expected = usual + consistency(logits, groups, torch.eye(4, dtype=torch.bool), weights)
    assert torch.allclose(found, expected, atol=1e-5) and expected > usual


def contrast(features: torch.Tensor, **term: object) -> LossFunction:
    """The term `sup_con` alone, as the difference that it makes, in six classes of two factors."""
    space = factor_label_space({"mask": ("wear", "none"), "age": ("young", "middle", "old")})
    both, counts = recipe(loss=["cross_entropy", {"name": "sup_con", **term}]), np.ones(6)
    whole = make_loss(both, counts, label_space=space, features=lambda: features)
    return lambda logits, targets: whole(logits, targets) - make_loss(recipe(), counts)(logits, targets)


def test_the_supervised_contrastive_loss_is_that_of_the_paper_by_hand() -> None:
    draw = torch.Generator().manual_seed(3)
    features, logits = torch.randn(5, 7, generator=draw), torch.randn(5, 6, generator=draw)
    ages, targets = [0, 0, 0, 1, 2], torch.eye(6)[[0, 3, 0, 1, 2]]
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    powers = np.exp(unit @ unit.T / 0.5)

    def by_hand(levels: list[int]) -> float:
        total = 0.0
        for one in range(5):
            others = [place for place in range(5) if place != one]
            same = [place for place in others if levels[place] == levels[one]]
            below = sum(powers[one, place] for place in others)
            total -= sum(np.log(powers[one, place] / below) for place in same) / max(len(same), 1)
        return total / 5

    found = contrast(features, factors=["age"], temperature=0.5)(logits, targets)
    assert found.item() == pytest.approx(by_hand(ages), rel=1e-4)
    assert contrast(features, temperature=0.5, weight=2)(logits, targets).item() == pytest.approx(
        2 * by_hand([0, 3, 0, 1, 2]), rel=1e-4
    )


def test_mixed_images_are_contrasted_by_the_factors_that_their_partner_shares() -> None:
    draw = torch.Generator().manual_seed(3)
    features, logits = torch.randn(4, 7, generator=draw), torch.randn(4, 6, generator=draw)
    mixed = (torch.eye(6)[[0, 0, 1, 4]] + torch.eye(6)[[3, 0, 4, 1]]) / 2  # masks are mixed, ages stay
    pure = torch.eye(6)[[0, 0, 1, 4]]
    age, classes = contrast(features, factors=["age"]), contrast(features)
    assert torch.allclose(age(logits, mixed), age(logits, pure), atol=1e-5)
    assert classes(logits, mixed).item() == pytest.approx(0, abs=1e-5) and classes(logits, pure) > 0.1


def test_features_followed_down_hill_lie_together_by_class() -> None:
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    shares = torch.eye(2).repeat(4, 1)
    for _ in range(300):
        (slope,) = torch.autograd.grad(sup_con(features, shares, 0.1), features)
        assert torch.isfinite(slope).all()
        features = (features - slope).detach().requires_grad_()
    unit = F.normalize(features.detach(), dim=1)
    cosines = unit @ unit.T
    assert cosines[::2, ::2].min() > cosines[::2, 1::2].max() + 0.5
