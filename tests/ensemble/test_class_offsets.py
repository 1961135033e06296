"""Offsets of classes: what they bring, and the fast score over the grid against the slow one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.ensemble.class_offsets import LIMIT, _macro_f1_over_grid, _two_largest, fit_offsets, predict_classes
from foldvote.evaluation.metrics import macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator
from support.simulated_votes import SEEDS, drawn


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_offsets_never_lower_macro_f1_on_what_they_were_fitted_on(seed):
    candidates, labels = drawn(seed, skills=(1.2,), views=1, images=120)
    probabilities = candidates.probabilities[0]
    offsets = fit_offsets(probabilities, labels)
    assert max(map(abs, offsets)) <= LIMIT
    plain, moved = (macro_f1(labels, predict_classes(probabilities, own), 6) for own in (None, offsets))
    assert moved >= plain


def test_offsets_find_a_class_that_is_held_too_low():
    draws = generator(10, "offsets")
    labels = draws.integers(0, 3, 2000)
    logits = 2 * np.eye(3)[labels] + draws.normal(0, 1, (2000, 3)) - [0, 0, 1.2]
    probabilities = softmax(logits)
    offsets = fit_offsets(probabilities, labels)
    assert 0.8 < offsets[2] - np.mean(offsets[:2]) < 1.6
    assert (
        macro_f1(labels, predict_classes(probabilities, offsets), 3)
        > macro_f1(labels, predict_classes(probabilities), 3) + 0.05
    )
    assert predict_classes(np.array([[0.5, 0.5]]), [0.0, 0.0]).tolist() == [0]


def test_without_labels_the_rare_class_is_held_as_low_as_its_probabilities_say():
    """Probabilities that are true, of a rare class that is never the likeliest: labels would add nothing but noise."""
    draws = generator(11, "expected")
    rare = draws.uniform(0, 0.4, 6000)
    probabilities = np.stack([0.6 * (1 - rare), 0.4 * (1 - rare), rare], axis=1)
    labels = np.array([draws.choice(3, p=one) for one in probabilities])
    offsets = fit_offsets(probabilities)
    few = draws.choice(6000, 60, replace=False)
    scores = [
        macro_f1(labels, predict_classes(probabilities, own), 3)
        for own in (None, offsets, fit_offsets(probabilities, labels), fit_offsets(probabilities[few], labels[few]))
    ]
    assert scores[0] + 0.05 < scores[1] and scores[3] < scores[1] <= scores[2] + 1e-9 < scores[1] + 0.02
    assert fit_offsets(np.eye(3)[labels]) == [0.0] * 3  # certain: nothing is expected of any offset


@given(SEEDS, st.integers(1, 40), st.integers(2, 5), st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_score_over_the_grid_is_that_of_each_offset_tried_by_itself(seed, images, classes, labelled):
    draws = generator(seed, "grid")
    # Eighths are exact and make many ties, in which the lower code must win.
    logs, offsets = draws.integers(-9, 1, (images, classes)) / 8, draws.integers(-3, 4, classes) / 8
    labels, grid = draws.integers(0, classes, images), draws.permutation(np.arange(-8, 9)) / 8
    belongs = np.eye(classes, dtype=bool)[labels] if labelled else softmax(draws.normal(0, 1, (images, classes)))
    support = belongs.sum(axis=0)
    for code in range(classes):
        slow = []
        for offset in grid:
            moved = logs + np.where(np.arange(classes) == code, offset, offsets)
            predicted = np.eye(classes)[moved.argmax(axis=1)]
            both, hits = support + predicted.sum(axis=0), (belongs * predicted).sum(axis=0)
            slow.append(np.mean(2 * hits / np.where(both > 0, both, 1)))
            if labelled:
                assert slow[-1] == pytest.approx(macro_f1(labels, moved.argmax(axis=1), classes))
        others = np.where(np.arange(classes) == code, -np.inf, logs + offsets)
        rival = others.argmax(axis=1)
        threshold = others.max(axis=1) - logs[:, code]
        found = _macro_f1_over_grid(threshold, rival, belongs, support, code, grid)
        np.testing.assert_allclose(found, slow, rtol=1e-12)


@given(SEEDS, st.integers(1, 40), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_the_best_other_class_is_found_from_the_two_largest(seed, images, classes):
    values = generator(seed, "two").integers(-3, 3, (images, classes)) / 8
    best, second = _two_largest(values)
    for code in range(classes):
        others = np.where(np.arange(classes) == code, -np.inf, values)
        np.testing.assert_array_equal(np.where(best == code, second, best), others.argmax(axis=1))
