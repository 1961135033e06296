"""Which answers are handed to a person."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.evaluation.abstention import NONE, keep_best, keep_from
from foldvote.runtime.seeding import generator

GROUPS = 100


def drawn(seed, images=200):
    """Confidences with many ties, and answers that are right as often as they say."""
    draws = generator(seed, "abstention")
    confidence = draws.random(images).round(1)
    return confidence, draws.random(images) < confidence


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 1.0]), st.sampled_from(["kept", "all"]))
def test_as_few_as_possible_are_handed_over(seed, accuracy, answers):
    confidence, right = drawn(seed)

    def good(threshold):
        kept = confidence >= threshold
        counted = right[kept] if answers == "kept" else right | ~kept
        unseen = len(right) / GROUPS
        return kept.any() and counted.sum() / (len(counted) + unseen) >= accuracy - 1e-9

    fit = [threshold for threshold in np.unique(confidence) if good(threshold)]
    assert keep_from(confidence, right, GROUPS, accuracy, answers) == (min(fit) if fit else NONE)


@given(st.integers(0, 10_000))
def test_a_higher_accuracy_keeps_fewer_and_the_order_changes_nothing(seed):
    confidence, right = drawn(seed)
    order = generator(seed, "order").permutation(len(right))
    for answers in ("kept", "all"):
        found = [keep_from(confidence, right, GROUPS, accuracy, answers) for accuracy in (0.6, 0.8, 0.95)]
        if answers == "all":
            assert found == sorted(found)
        assert found == [
            keep_from(confidence[order], right[order], GROUPS, accuracy, answers) for accuracy in (0.6, 0.8, 0.95)
        ]


@pytest.mark.parametrize("answers", ["kept", "all"])
def test_new_groups_reach_the_wanted_accuracy(answers):
    """On the average over many sets of 100 groups whose images err together."""
    reached = []
    for trial in range(300):
        draws = generator(trial, "new groups")
        of_group = draws.random(200) ** 0.4
        confidence, right = of_group.repeat(5), (draws.random(200) < of_group).repeat(5)
        known = np.arange(1000) < 500
        kept = confidence >= keep_from(confidence[known], right[known], 100, 0.8, answers)
        new = right[kept & ~known] if answers == "kept" else (right | ~kept)[~known]
        reached += [new.mean()] if len(new) else []
    error = 3 * np.std(reached) / np.sqrt(len(reached))
    assert 0.8 - error < np.mean(reached) < 0.83


def test_a_few_answers_that_happen_to_be_right_reach_no_accuracy():
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False])
    assert keep_from(confidence, right, 4, 0.99, "kept") == NONE
    assert keep_from(confidence, right, 4, 0.5, "kept") == 0.7


def test_without_images_nothing_is_kept():
    assert keep_from(np.zeros(0), np.zeros(0, bool), 0, 0.9, "kept") == NONE
    assert keep_best(np.zeros(0), 0.0) == NONE


@pytest.mark.parametrize(("share", "kept"), [(0.0, 10), (0.25, 8), (0.9, 1)])
def test_the_best_share_is_kept(share, kept):
    confidence = np.arange(10) / 10
    assert (confidence >= keep_best(confidence, share)).sum() == kept
