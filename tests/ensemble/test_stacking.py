"""Stacking: classes without an image keep the mean, and LightGBM is kept as text."""

import json
from dataclasses import replace

import numpy as np
import pytest

from foldvote.ensemble.candidates import model_means
from foldvote.ensemble.methods import apply_method, fit_method
from foldvote.ensemble.selection import nested_cv
from foldvote.ensemble.stacking import STRENGTHS, _features, _regression, _regression_path
from foldvote.errors import UserError
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from support.simulated_votes import LABEL_SPACE, drawn


@pytest.mark.parametrize("classes", [[0], [0, 3], [0, 1, 4]])
def test_stacking_leaves_classes_without_an_image_to_the_mean(classes):
    candidates, labels = drawn(8)
    few = np.isin(labels, classes)
    params = fit_method("stacking", candidates.rows(few), labels[few], LABEL_SPACE, 1)
    found = apply_method(candidates, params, LABEL_SPACE)
    mean = model_means(candidates)[1].mean(axis=0)
    others = [code for code in range(6) if code not in classes]
    np.testing.assert_allclose(found[:, others], mean[:, others], atol=1e-6)
    if len(classes) > 1:
        assert log_loss(labels[few], found[few]) < log_loss(labels[few], mean[few])


@pytest.mark.parametrize("classes", [[0, 3], [0, 1, 4], [0, 1, 2, 3, 4, 5]])
def test_strengths_are_compared_by_fits_like_those_of_scikit_learn(classes):
    candidates, labels = drawn(8, images=600)
    few = np.isin(labels, classes)
    features, labels = _features(candidates.rows(few), None)[1], labels[few]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    seen, path = _regression_path(features.astype(np.float32), labels)
    for strength, (weights, intercepts) in zip(STRENGTHS, path, strict=True):
        expected_seen, expected_weights, expected_intercepts = _regression(features, labels, strength)
        assert seen.tolist() == expected_seen.tolist()
        found = softmax(features @ weights.T + intercepts)
        expected = softmax(features @ expected_weights.T + expected_intercepts)
        np.testing.assert_allclose(found, expected, atol=1e-2)
        assert log_loss(np.searchsorted(seen, labels), found) == pytest.approx(
            log_loss(np.searchsorted(seen, labels), expected), abs=2e-4
        )


def test_stacking_learns_from_metadata_of_the_images_that_it_is_fitted_on():
    candidates, labels = drawn(8, metadata=True)
    folds = np.arange(300) % 3
    scores = {
        kind: log_loss(labels, nested_cv(kind, candidates, labels, folds, LABEL_SPACE, 1).probabilities)
        for kind in ("stacking", "stacking_metadata")
    }
    assert scores["stacking_metadata"] < scores["stacking"] - 0.05, scores
    rest = np.flatnonzero(folds)
    params = fit_method("stacking_metadata", candidates, labels, LABEL_SPACE, 1, folds=folds, rows=rest)
    age, site = params["stacking"]["metadata"]
    assert age["mean"] == pytest.approx(candidates.metadata["age"].iloc[rest].mean())
    assert site["levels"] == ["north", "south"]
    new = replace(candidates, metadata=candidates.metadata.assign(age=np.nan, site="elsewhere"))
    found = apply_method(new, json.loads(json.dumps(params)), LABEL_SPACE)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert not np.allclose(found, apply_method(candidates, params, LABEL_SPACE))
    without = fit_method("stacking", candidates, labels, LABEL_SPACE, 1, folds=folds, rows=rest)
    plain = replace(candidates, metadata=None)
    assert fit_method("stacking", plain, labels, LABEL_SPACE, 1, folds=folds, rows=rest) == without
    with pytest.raises(UserError, match="no metadata of these images"):
        apply_method(plain, params, LABEL_SPACE)
    with pytest.raises(UserError, match="no metadata of these images"):
        fit_method("stacking_metadata", plain, labels, LABEL_SPACE, 1)


def test_lightgbm_learns_like_the_others_and_is_kept_as_text():
    candidates, labels = drawn(14, images=300)
    try:
        import lightgbm  # noqa: F401
    except OSError:
        with pytest.raises(UserError, match="libgomp1"):
            fit_method("lightgbm", candidates, labels, LABEL_SPACE, 1)
        return
    params = fit_method("lightgbm", candidates, labels, LABEL_SPACE, 1)
    found = apply_method(candidates, json.loads(json.dumps(params)), LABEL_SPACE)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    mean = apply_method(candidates, fit_method("mean", candidates, labels, LABEL_SPACE, 1), LABEL_SPACE)
    assert log_loss(labels, found) < log_loss(labels, mean)
    again = fit_method("lightgbm", candidates, labels, LABEL_SPACE, 1)
    np.testing.assert_array_equal(found, apply_method(candidates, again, LABEL_SPACE))
