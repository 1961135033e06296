"""Calibration of the mean of all members, derived from single members and their spread."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.ensemble.scaling import apply_scaling, fit_scaling, scaling_of_mean
from foldvote.evaluation.calibration import apply_temperature, fit_temperature
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator


def simulated(seed, members, images=3000, classes=6, factor=2.0, noise=1.0):
    """Labels, and probabilities (members, images, classes): logits that all share, and noise of each member."""
    draws = generator(seed, "members")
    labels = draws.integers(0, classes, images)
    shared = 2 * np.eye(classes)[labels] + draws.normal(size=(images, classes))
    return labels, softmax(factor * (shared + noise * draws.normal(size=(members, *shared.shape))))


@pytest.mark.parametrize("members", [3, 10])
@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0])
def test_the_derived_temperature_is_near_the_best_and_the_out_of_fold_one_is_not(members, factor):
    labels, singles = simulated(1, members + 1, factor=factor)
    oof, mean = singles[0], singles[1:].mean(axis=0)
    single = fit_temperature(oof, labels)
    scaling = scaling_of_mean(single, 1, list(singles[1:]), mean)
    assert scaling["source"] == "spread of the members"
    best = log_loss(labels, apply_temperature(mean, fit_temperature(mean, labels)))
    derived, naive = log_loss(labels, apply_scaling(mean, scaling)), log_loss(labels, apply_temperature(mean, single))
    assert derived - best < 0.02
    assert naive - best > 0.03
    assert derived < log_loss(labels, mean) + 0.005


def test_predictions_of_several_repeats_are_less_noisy():
    """Derived from the mean of two members per image as from single ones, it is the same temperature."""
    labels, singles = simulated(2, 12)
    mean = singles[:10].mean(axis=0)
    from_single = scaling_of_mean(fit_temperature(singles[10], labels), 1, list(singles[:10]), mean)
    two = softmax(np.log(singles[10:]).mean(axis=0))
    from_two = scaling_of_mean(fit_temperature(two, labels), 2, list(singles[:10]), mean)
    assert from_two["temperature"] == pytest.approx(from_single["temperature"], rel=0.1)


def test_one_fold_has_no_spread():
    _, singles = simulated(3, 1)
    scaling = scaling_of_mean(1.7, 1, list(singles), singles[0])
    assert (scaling["temperature"], scaling["source"]) == (1.7, "out-of-fold predictions")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.3, 4), members=st.integers(2, 6))
def test_identical_members_keep_the_temperature_and_their_order_changes_nothing(seed, temperature, members):
    _, singles = simulated(seed, members, images=50)
    same = [singles[0]] * members
    expected = min(temperature, 1 + (temperature - 1) / 2)  # with caution above 1
    assert scaling_of_mean(temperature, 1, same, singles[0])["temperature"] == pytest.approx(expected, rel=1e-4)
    mean = singles.mean(axis=0)
    one = scaling_of_mean(temperature, 1, list(singles), mean)["temperature"]
    assert scaling_of_mean(temperature, 1, list(singles[::-1]), mean)["temperature"] == pytest.approx(one, rel=1e-9)


def test_each_calibration_is_applied_as_it_was_fitted():
    labels, singles = simulated(4, 1, images=400)
    raw = singles[0]
    assert (apply_scaling(raw, fit_scaling(raw, labels, "none", "reserve")) == raw).all()
    for method in ("auto", "temperature", "vector"):
        scaled = apply_scaling(raw, fit_scaling(raw, labels, method, "reserve"))
        np.testing.assert_allclose(scaled.sum(axis=1), 1)
        assert log_loss(labels, scaled) < log_loss(labels, raw)
