"""Calibration: known temperatures are found again, no fold sees its own labels, and nothing degenerate crashes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    apply_temperature,
    apply_vector,
    brier,
    calibrate_nested,
    confidence_bins,
    ece,
    fit_temperature,
    fit_vector,
    reliability,
)
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator


def labels_of(probabilities, draws):
    """Labels that are drawn from probabilities."""
    passed = probabilities.cumsum(axis=1) < draws.random((len(probabilities), 1))
    return passed.sum(axis=1).clip(0, probabilities.shape[1] - 1)


def calibrated_case(seed, images=20_000, classes=6, sharpness=1.5):
    """Probabilities, and labels that are drawn from them."""
    draws = generator(seed, "honest")
    probabilities = softmax(sharpness * draws.standard_normal((images, classes)))
    return probabilities, labels_of(probabilities, draws)


@pytest.mark.parametrize("t", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found_and_calibrates(t):
    true, labels = calibrated_case(1)
    shown = apply_temperature(true, 1 / t)  # too sure where t > 1
    found = fit_temperature(shown, labels)
    assert found == pytest.approx(t, rel=0.04)
    calibrated = apply_temperature(shown, found)
    assert ece(labels, calibrated) < 0.015
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-12)
    if t != 1:
        assert ece(labels, shown) > 0.1
        assert log_loss(labels, shown) > log_loss(labels, calibrated)


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(2, 19), st.floats(LOWEST, HIGHEST))
@settings(max_examples=60, deadline=None)
def test_a_temperature_keeps_the_choice_and_a_better_one_is_not_beside_the_fit(seed, images, classes, t):
    probabilities, labels = calibrated_case(seed, images, classes, 3.0)
    np.testing.assert_array_equal(apply_temperature(probabilities, t).argmax(axis=1), probabilities.argmax(axis=1))
    best = log_loss(labels, apply_temperature(probabilities, fit_temperature(probabilities, labels)))
    assert best <= log_loss(labels, apply_temperature(probabilities, t)) + 1e-7


def test_temperature_one_changes_nothing():
    probabilities, _ = calibrated_case(2, 50)
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities, rtol=1e-12)
    with pytest.raises(ValueError, match="above 0"):
        apply_temperature(probabilities, 0.0)


def test_vector_scaling_finds_what_one_temperature_cannot():
    shown, _ = calibrated_case(3, 40_000, 4)
    true = apply_vector(shown, {"weights": [0.5, 1.0, 1.5, 0.8], "biases": [1.0, -0.5, 0.0, -0.5]})
    labels = labels_of(true, generator(3, "labels"))
    fitted = fit_vector(shown, labels)
    assert json.loads(json.dumps(fitted)) == fitted
    assert fitted["weights"] == pytest.approx([0.5, 1.0, 1.5, 0.8], abs=0.1)
    assert fitted["biases"] == pytest.approx([1.0, -0.5, 0.0, -0.5], abs=0.15)
    calibrated = apply_vector(shown, fitted)
    assert np.abs(calibrated - true).mean() < 0.01
    assert ece(labels, calibrated) < 0.015
    tempered = apply_temperature(shown, fit_temperature(shown, labels))
    assert log_loss(labels, calibrated) < log_loss(labels, tempered) - 0.02


@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(2, 7), st.floats(0.1, 100))
@settings(max_examples=30, deadline=None)
def test_nothing_near_the_fitted_vector_is_better(seed, images, classes, pull):
    probabilities, labels = calibrated_case(seed, images, classes, 2.0)
    fitted = fit_vector(probabilities, labels, pull=pull)
    values = np.concatenate([fitted["weights"], fitted["biases"]])
    identity = np.concatenate([np.ones(classes), np.zeros(classes)])

    def objective(at):
        scaling = {"weights": at[:classes].tolist(), "biases": at[classes:].tolist()}
        away = at - identity
        return log_loss(labels, apply_vector(probabilities, scaling)) + pull / 2 * away @ away / images

    assert values[:classes].min() >= LOWEST and values[:classes].max() <= HIGHEST
    steps = generator(seed, "steps").standard_normal((20, 2 * classes))
    for step in steps * np.logspace(-3, 0, 20)[:, None]:
        beside = values + step
        beside[:classes] = beside[:classes].clip(LOWEST, HIGHEST)
        assert objective(values) <= objective(beside) + 1e-6


def test_a_class_with_few_images_or_none_stays_near_the_identity():
    probabilities, labels = calibrated_case(4, 3_000, 5)
    labels[labels == 4] = 3  # class 4 is given probability and never comes
    labels[0] = 4
    fitted = fit_vector(probabilities, labels)
    assert np.isfinite(apply_vector(probabilities, fitted)).all()
    assert np.abs(fitted["biases"]).max() < 8 and np.abs(np.subtract(fitted["weights"], 1)).max() < 8
    few = fit_vector(probabilities[:3], labels[:3])
    assert np.abs(few["biases"]).max() < 0.5 and np.abs(np.subtract(few["weights"], 1)).max() < 0.5
    with pytest.raises(ValueError, match="pull"):
        fit_vector(probabilities, labels, pull=0.0)


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_no_fold_is_calibrated_by_its_own_labels(method):
    true, labels = calibrated_case(5, 3_000, 4)
    shown = apply_temperature(true, 0.4)
    folds = np.arange(3_000) % 3
    before = calibrate_nested(shown, labels, folds, method)
    changed = np.where(folds == 1, (labels + 1) % 4, labels)
    after = calibrate_nested(shown, changed, folds, method)
    np.testing.assert_array_equal(after[folds == 1], before[folds == 1])
    assert (np.abs(after[folds != 1] - before[folds != 1]).max(axis=1) > 0).mean() > 0.9
    assert ece(labels, before) < 0.06 < ece(labels, shown)
    np.testing.assert_allclose(before.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_degenerate_predictions_do_not_crash(method):
    eye, labels = np.eye(3), np.arange(12) % 3
    folds = np.array([0] * 6 + [7] * 6)  # numbers between 0 and 7 are of no image
    certain = eye[labels]
    np.testing.assert_allclose(calibrate_nested(certain, labels, folds, method), certain, atol=1e-9)
    for probabilities, truth in [
        (certain, (labels + 1) % 3),  # all wrong with certainty
        (0.7 * certain + 0.1, labels),  # all right
        (0.7 * certain + 0.1, np.zeros(12, int)),  # one class only
        (np.full((12, 3), 1 / 3), labels),
        (np.ones((12, 1)), np.zeros(12, int)),
    ]:
        calibrated = calibrate_nested(probabilities, truth, folds, method)
        assert np.isfinite(calibrated).all()
        np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_array_equal(calibrate_nested(certain, labels, np.zeros(12, int), method), certain)
    assert calibrate_nested(np.empty((0, 3)), np.empty(0, int), np.empty(0, int), method).shape == (0, 3)


def test_temperatures_stay_in_their_bounds():
    labels = np.arange(12) % 3
    certain = np.eye(3)[labels]
    assert fit_temperature(certain, labels) == 1.0  # nothing to learn
    assert fit_temperature(np.full((12, 3), 1 / 3), labels) == 1.0
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1.0
    assert fit_temperature(0.7 * certain + 0.1, labels) == LOWEST
    assert fit_temperature(certain, (labels + 1) % 3) == HIGHEST
    assert fit_vector(np.empty((0, 3)), np.empty(0, int)) == {"weights": [1.0] * 3, "biases": [0.0] * 3}
    assert isinstance(fit_temperature(*calibrated_case(6, 100)), float)


def test_a_fit_on_a_part_is_repeatable_and_close():
    true, labels = calibrated_case(7, 30_000)
    shown = apply_temperature(true, 0.5)
    part = fit_temperature(shown, labels, most_images=10_000)
    assert part == fit_temperature(shown, labels, most_images=10_000) != fit_temperature(shown, labels)
    assert part == pytest.approx(2.0, rel=0.05)
    vector = fit_vector(shown, labels, most_images=10_000)
    assert vector == fit_vector(shown, labels, most_images=10_000)
    assert vector["weights"] == pytest.approx([0.5] * 6, rel=0.15)


@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(2, 7), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_reliability_is_that_of_a_loop_and_ece_follows_from_it(seed, images, classes, bins):
    probabilities, labels = calibrated_case(seed, images, classes, 3.0)
    table = reliability(labels, probabilities, bins)
    assert list(table) == ["bin", "low", "high", "images", "confidence", "accuracy"]
    assert table["images"].sum() == images and len(table) == bins
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for row in table.itertuples():
        inside = (confidence > row.low) & (confidence <= row.high)
        assert row.images == inside.sum()
        if row.images:
            assert (row.confidence, row.accuracy) == pytest.approx((confidence[inside].mean(), right[inside].mean()))
            total += inside.sum() / images * abs(row.confidence - row.accuracy)
        else:
            assert np.isnan(row.confidence) and np.isnan(row.accuracy)
    assert ece(labels, probabilities, bins) == pytest.approx(total, abs=1e-12)


def test_scores_by_hand():
    labels, probabilities = np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]])
    assert brier(labels, probabilities) == pytest.approx(0.72 / 3)
    assert ece(labels, probabilities) == pytest.approx(0.6 / 3)
    assert brier(labels[:0], probabilities[:0]) == ece(labels[:0], probabilities[:0]) == 0.0
    assert confidence_bins(np.array([0.0, 0.2, 0.21, 1.0, 1.0000001]), 5).tolist() == [0, 0, 1, 4, 4]


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.array([0, 2]), np.full((2, 2), 0.5), "labels run from 0 to 2, of 2 classes"),
        (np.array([-1, 0]), np.full((2, 2), 0.5), "labels run from -1"),
        (np.array([0]), np.full((2, 2), 0.5), "do not go together"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), "nan"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [2.0, -1.0]]), "outside 0 to 1"),
    ],
)
def test_faults_are_refused(labels, probabilities, message):
    for function in (ece, brier, reliability):
        with pytest.raises(ValueError, match=message):
            function(labels, probabilities)
    with pytest.raises(ValueError, match=message):
        fit_temperature(probabilities, labels)
    with pytest.raises(ValueError, match=message):
        fit_vector(probabilities, labels)


def test_an_unknown_method_and_unfit_folds_are_refused():
    probabilities, labels = calibrated_case(8, 10)
    with pytest.raises(ValueError, match="none of temperature, vector"):
        calibrate_nested(probabilities, labels, np.zeros(10, int), "platt")
    with pytest.raises(ValueError, match="as many as labels"):
        calibrate_nested(probabilities, labels, np.zeros(9, int))
