"""Sets of classes: that they contain the truth as often as stated, for groups of images that are alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.evaluation.conformal import least_probability, prediction_sets
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

CLASSES, TRIALS = 6, 400


def drawn(key, groups, unequal=True):
    """Images of groups that share most of their errors: labels, probabilities and groups.

    With `unequal`, half of the groups have 2 images and are hard, the others have 20 and are easy.
    """
    draws = generator(1, "conformal", *key)
    hard = draws.random(groups) < 0.5
    group = np.repeat(np.arange(groups), np.where(hard, 2, 20) if unequal else 7)
    labels = draws.integers(0, CLASSES, groups)[group]
    logits = draws.normal(0, 1.5, (groups, CLASSES))[group] + draws.normal(0, 0.4, (len(group), CLASSES))
    logits[np.arange(len(group)), labels] += np.where(hard, 0.5, 4.0)[group] if unequal else 2.0
    return labels, softmax(logits), group


def truths(labels, probabilities):
    return probabilities[np.arange(len(labels)), labels], probabilities.argmax(axis=1) == labels


def calibrated(images, coverage, covers="image", groups=None):
    labels, probabilities, group = images
    return least_probability(*truths(labels, probabilities), group if groups is None else groups, coverage, covers)


def in_sets(images, least):
    labels, probabilities, _ = images
    return prediction_sets(probabilities, probabilities.argmax(axis=1), least)[np.arange(len(labels)), labels]


def covered_shares(covers, *, by_image=False, unequal=True, groups=40, coverage=0.9):
    """For many drawn sets: the share of images of 50 new groups that is covered, each group weighing the same."""
    shares = []
    for trial in range(TRIALS):
        known, new = drawn(("known", trial), groups, unequal), drawn(("new", trial), 50, unequal)
        units = np.arange(len(known[2])) if by_image else None
        covered = in_sets(new, calibrated(known, coverage, covers, units))
        of_group = np.bincount(new[2], covered) / np.bincount(new[2])
        shares.append(np.mean(of_group == 1) if covers == "group" else np.mean(of_group))
    return np.array(shares)


@pytest.mark.parametrize("covers", ["image", "group"])
def test_sets_cover_new_groups_as_often_as_wanted(covers):
    """Between the wanted share and 2 / (groups + 1) above it, as the theory says, within three standard errors."""
    shares = covered_shares(covers)
    error = 3 * shares.std() / np.sqrt(len(shares))
    assert 0.9 - error <= shares.mean() <= 0.9 + 2 / 41 + error


def test_taking_images_for_independent_covers_too_little():
    assert covered_shares("image", by_image=True).mean() < 0.75


def test_a_high_coverage_from_few_groups_is_kept_and_by_images_it_is_not():
    """With 15 groups nothing less than all classes contains the truth of 95 % of new groups."""
    given_by_groups = covered_shares("image", unequal=False, groups=15, coverage=0.97)
    assert (given_by_groups == 1).all()
    assert covered_shares("image", by_image=True, unequal=False, groups=15, coverage=0.97).mean() < 0.96


def test_with_one_image_per_group_it_is_plain_split_conformal_prediction():
    labels, probabilities, group = drawn(("plain",), 99, unequal=False)
    first = np.unique(group, return_index=True)[1]
    own, right = truths(labels[first], probabilities[first])
    scores = np.sort(1 - np.where(right, 1, own))
    assert least_probability(own, right, np.arange(99), 0.9) == pytest.approx(1 - scores[89])  # 90 = 0.9 x (99 + 1)


@given(st.integers(0, 10_000), st.floats(0.5, 0.999), st.floats(0.5, 0.999), st.sampled_from(["image", "group"]))
def test_a_higher_coverage_gives_larger_sets_and_none_is_empty(seed, one, other, covers):
    images = drawn(("nested", seed), 12)
    _, probabilities, _ = images
    predicted = generator(seed, "predicted").integers(0, CLASSES, len(probabilities))  # offsets may choose any class
    small, large = (
        prediction_sets(probabilities, predicted, calibrated(images, coverage, covers))
        for coverage in sorted([one, other])
    )
    assert (small <= large).all()
    assert small[np.arange(len(small)), predicted].all()


@given(st.integers(0, 10_000), st.floats(0.5, 0.999), st.sampled_from(["image", "group"]))
def test_order_of_images_and_codes_of_groups_change_nothing(seed, coverage, covers):
    labels, probabilities, group = drawn(("order", seed), 12)
    probabilities = probabilities.round(1)  # with many ties
    draws = generator(seed, "order")
    order, codes = draws.permutation(len(labels)), draws.permutation(100)
    shuffled = (labels[order], probabilities[order], codes[group[order]])
    assert calibrated((labels, probabilities, group), coverage, covers) == calibrated(shuffled, coverage, covers)


def test_too_few_groups_give_all_classes():
    images = drawn(("few",), 8)
    assert calibrated(images, 0.9) == 0
    assert calibrated(images, 8 / 9 - 1e-6) > 0
    assert least_probability(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), 0.9) == 0


def test_predictions_that_are_right_often_enough_stand_alone():
    right = np.arange(100) >= 5
    own = np.where(right, 0.6, 0.3)
    least = least_probability(own, right, np.arange(100), 0.9)
    sets = prediction_sets(np.array([[0.5, 0.5, 0.0]]), np.array([1]), least)
    assert sets.tolist() == [[False, True, False]]
