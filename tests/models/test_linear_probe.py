"""The regression of a probe: its scaling is part of it, its parts are whole groups, and rare classes keep it whole."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from foldvote.models.linear_probe import choose_strength, deal_parts, fit_probe


def drawn(rows: int = 90, width: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    labels = np.arange(rows) % classes
    features = draw.normal(size=(rows, width)) * 10 ** draw.uniform(-2, 2, width) + draw.normal(size=width) * 50
    features += 2 * features.std(axis=0) * np.eye(classes, width)[labels]
    return features, labels


@pytest.mark.parametrize(("classes", "width"), [(3, 6), (2, 6), (3, 200)])
def test_it_is_the_regression_on_standardised_features_as_one_linear_layer(classes: int, width: int) -> None:
    features, labels = drawn(classes=classes, width=width)
    probe = fit_probe(features, labels, classes, strength=0.1)
    other = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.1 * len(labels)), tol=1e-8, max_iter=5000))
    other.fit(features, labels)
    ours = np.exp(probe.logits(features))
    ours /= ours.sum(axis=1, keepdims=True)
    assert np.allclose(ours, other.predict_proba(features), atol=5e-3)
    assert probe.loss == pytest.approx(-np.log(ours[np.arange(len(labels)), labels]).mean(), rel=1e-6)


@pytest.mark.parametrize("width", [6, 200])
def test_weights_of_rows_are_those_of_their_losses(width: int) -> None:
    features, labels = drawn(width=width)
    weights = np.where(np.arange(len(labels)) < 30, 4.0, 0.5)
    probe = fit_probe(features, labels, 3, 0.1, weights)
    own = StandardScaler().fit_transform(features)
    other = LogisticRegression(C=1 / (0.1 * weights.sum()), tol=1e-8, max_iter=5000).fit(own, labels, weights)
    ours = np.exp(probe.logits(features))
    ours /= ours.sum(axis=1, keepdims=True)
    assert np.allclose(ours, other.predict_proba(own), atol=5e-3)
    assert probe.loss == pytest.approx(np.average(-np.log(ours[np.arange(90), labels]), weights=weights), rel=1e-6)
    plain, alike = fit_probe(features, labels, 3, 0.1), fit_probe(features, labels, 3, 0.1, np.full(90, 3.0))
    assert np.allclose(plain.logits(features), alike.logits(features), atol=5e-3)
    assert not np.allclose(plain.logits(features), probe.logits(features), atol=5e-2)


def test_rows_of_little_weight_have_little_say_in_the_penalty() -> None:
    draw, labels = np.random.default_rng(1), np.arange(240) % 3
    features = np.eye(3)[labels] + draw.normal(size=(240, 3)) * 0.05
    labels[120:] = draw.permutation(labels[120:])
    weights, groups = np.where(np.arange(240) < 120, 1.0, 1e-6), np.arange(240).astype(str)
    assert choose_strength(features, labels, groups, 3, 0, weights) < choose_strength(features, labels, groups, 3, 0)


def test_a_feature_that_never_varies_and_a_class_without_images_are_no_harm() -> None:
    features, labels = drawn()
    features[:, 2] = 7.0
    probe = fit_probe(features, labels * 2, 6, strength=0.1)
    logits = probe.logits(features)
    assert np.isfinite(logits).all()
    assert set(logits.argmax(axis=1)) == {0, 2, 4}


def test_of_one_class_alone_it_says_that_class() -> None:
    features, _ = drawn()
    probe = fit_probe(features, np.ones(len(features), int), 3, strength=0.1)
    assert (probe.logits(features).argmax(axis=1) == 1).all()


def test_parts_are_whole_groups_with_each_class_in_each_part() -> None:
    labels, groups = np.repeat(np.arange(30) % 3, 4), np.repeat(np.arange(30), 4).astype(str)
    parts = deal_parts(labels, groups, 5, 1, "test")
    assert (parts.reshape(30, 4) == parts.reshape(30, 4)[:, :1]).all()
    for part in range(5):
        assert np.bincount(labels[parts == part]).tolist() == [8, 8, 8]
    order = np.random.default_rng(0).permutation(120)
    assert (deal_parts(labels[order], groups[order], 5, 1, "test") == parts[order]).all()
    assert (deal_parts(labels, groups, 5, 2, "test") != parts).any()


def test_the_penalty_is_strong_where_features_say_nothing_and_weak_where_they_say_all() -> None:
    draw, labels = np.random.default_rng(1), np.arange(120) % 3
    groups = np.arange(120).astype(str)
    noise = draw.normal(size=(120, 50))
    clear = np.eye(3)[labels] + draw.normal(size=(120, 3)) * 0.05
    assert choose_strength(noise, labels, groups, 3, 0) > 10 * choose_strength(clear, labels, groups, 3, 0)
    assert choose_strength(noise, labels, np.full(120, "one"), 3, 0) == 0.1  # nothing to choose by
