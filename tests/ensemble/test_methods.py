"""Kinds of votes: what must hold for any candidates."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates, model_means, subsample
from foldvote.ensemble.class_offsets import LIMIT, fit_offsets, predict_classes
from foldvote.ensemble.methods import apply_method, choose_classes, fit_method, simplest_first
from foldvote.ensemble.weighting import GAP, fit_mixture_weights, gains
from foldvote.errors import UserError
from foldvote.evaluation.metrics import log_loss, macro_f1
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator
from support.simulated_votes import ALL, SCHEME, drawn, noise

SEEDS = st.integers(0, 2**32)
WEIGHED = ["mean", "geometric", "best_model", "greedy", "weights"]


@pytest.mark.parametrize("kind", ALL)
def test_a_vote_is_probabilities_from_plain_json_image_by_image(kind):
    candidates, labels = drawn(1)
    params = fit_method(kind, candidates, labels, SCHEME, 3, folds=np.arange(300) % 3)
    assert json.loads(json.dumps(params, allow_nan=False)) == params
    found = apply_method(candidates, params, SCHEME)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    pieces = [apply_method(candidates.rows(slice(at, at + 37)), params, SCHEME) for at in range(0, 300, 37)]
    np.testing.assert_allclose(np.concatenate(pieces), found, atol=1e-12)
    assert macro_f1(labels, choose_classes(found, params), 6) > 0.3


@pytest.mark.parametrize("kind", ALL)
@given(seed=SEEDS)
@settings(max_examples=3, deadline=None)
def test_the_order_of_candidates_and_of_images_does_not_matter(kind, seed):
    candidates, labels = drawn(seed, images=150)
    folds, draws = np.arange(150) % 2, generator(seed, "order")
    found = apply_method(candidates, fit_method(kind, candidates, labels, SCHEME, 3, folds=folds), SCHEME)
    order = draws.permutation(len(candidates.names))
    mixed = candidates.named([candidates.names[at] for at in order])
    params = fit_method(kind, mixed, labels, SCHEME, 3, folds=folds)
    assert (apply_method(mixed, params, SCHEME) == found).all()
    assert (apply_method(candidates, params, SCHEME) == found).all()
    order = draws.permutation(150)
    params = fit_method(kind, candidates.rows(order), labels[order], SCHEME, 3, folds=folds[order])
    near = 0 if kind == "mean" else 1e-3 if kind == "stacking" else 1e-5
    np.testing.assert_allclose(apply_method(candidates, params, SCHEME), found, atol=near, rtol=0)


@pytest.mark.parametrize("kind", ["greedy", "weights", "best_model", "mean", "factor_weights", "class_weights"])
@given(seed=SEEDS)
@settings(max_examples=4, deadline=None)
def test_weights_sum_to_one_and_none_is_negative(kind, seed):
    candidates, labels = drawn(seed, images=80)
    params = fit_method(kind, candidates, labels, SCHEME, 3)
    if kind == "class_weights":
        rows = np.array(list(params["class_weights"].values())).T
    elif kind == "factor_weights":
        rows = np.array([list(own.values()) for own in params["factors"].values()])
    else:
        rows = np.array([list(params["weights"].values())])
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("kind", [*WEIGHED, "factor_weights", "class_weights"])
def test_one_candidate_alone_is_the_vote(kind):
    candidates, labels = drawn(2, skills=(1.5,), views=1)
    found = apply_method(candidates, fit_method(kind, candidates, labels, SCHEME, 3), SCHEME)
    np.testing.assert_allclose(found, candidates.probabilities[0], atol=1e-6 if kind == "geometric" else 2e-7)
    if kind in ("mean", "greedy", "weights", "best_model"):
        assert (found == candidates.probabilities[0]).all()


def test_a_candidate_that_boasts_outvotes_no_other_once_it_is_tempered():
    candidates, labels = drawn(15, skills=(1.5, 1.5), views=1, images=1000)
    logs = np.log(candidates.probabilities.astype(np.float64))
    boasting = Candidates(candidates.names, candidates.models, softmax(logs * np.array([1.0, 4.0])[:, None, None]))
    mean, tempered = (
        apply_method(boasting, fit_method(kind, boasting, labels, SCHEME, 1), SCHEME) for kind in ("mean", "tempered")
    )
    as_they_were = apply_method(candidates, fit_method("tempered", candidates, labels, SCHEME, 1), SCHEME)
    np.testing.assert_allclose(tempered, as_they_were, atol=1e-4)
    assert macro_f1(labels, tempered.argmax(axis=1), 6) > macro_f1(labels, mean.argmax(axis=1), 6)


@pytest.mark.parametrize("kind", [*WEIGHED, "majority", "rank", "tempered", "stacking"])
def test_two_identical_views_are_no_test_time_augmentation(kind):
    single, labels = drawn(3, skills=(1.5, 1.2), views=1)
    names = tuple(f"{name}-{copy}" for name in single.names for copy in "ab")
    twice = Candidates(names, tuple(np.repeat(single.models, 2)), np.repeat(single.probabilities, 2, axis=0))
    votes = [apply_method(own, fit_method(kind, own, labels, SCHEME, 3), SCHEME) for own in (single, twice)]
    np.testing.assert_allclose(votes[0], votes[1], atol=0.02 if kind == "greedy" else 1e-4)


@pytest.mark.parametrize("kind", ["greedy", "weights"])
def test_a_candidate_that_knows_nothing_gets_no_weight(kind):
    candidates, labels = drawn(4, images=1000)
    params = fit_method(kind, noise(candidates), labels, SCHEME, 3)
    assert params["weights"]["noise/identity"] < 0.02


@given(SEEDS, st.integers(2, 12))
@settings(max_examples=15, deadline=None)
def test_the_weights_are_the_best_by_the_bound_of_the_gradient(seed, count):
    own = generator(seed, "own").uniform(0, 1, (count, 200)) ** 3
    found = fit_mixture_weights(own)
    assert gains(own, found).max() - 1 < 2 * GAP
    assert np.log(found @ own).mean() >= np.log(own.mean(axis=0)).mean() - GAP


def test_weights_beat_the_mean_where_models_differ():
    candidates, labels = drawn(5, skills=(3.0, 0.3), images=1000)
    losses = {
        kind: log_loss(labels, apply_method(candidates, fit_method(kind, candidates, labels, SCHEME, 3), SCHEME))
        for kind in ("mean", "weights", "greedy", "class_weights")
    }
    assert losses["weights"] < losses["mean"] - 0.05
    assert losses["weights"] <= losses["greedy"] + 1e-5
    assert losses["class_weights"] < losses["mean"] - 0.05


def test_best_model_and_greedy_follow_the_metric():
    labels = np.array([0, 1, 0, 1])
    sure = np.array([[0.99, 0.01], [0.01, 0.99], [0.99, 0.01], [0.51, 0.49]])
    unsure = np.array([[0.51, 0.49], [0.49, 0.51], [0.51, 0.49], [0.49, 0.51]])
    candidates = Candidates(("sure/a", "unsure/a"), ("sure", "unsure"), np.stack([sure, unsure]))
    scheme = LabelSpace(("no", "yes"))
    for kind in ("best_model", "greedy"):
        by_loss = fit_method(kind, candidates, labels, scheme, 1)["weights"]
        by_f1 = fit_method(kind, candidates, labels, scheme, 1, metric="macro_f1")["weights"]
        assert by_loss["sure/a"] > 0.5
        assert by_f1 == {"sure/a": 0.0, "unsure/a": 1.0}


def test_majority_by_hand_and_its_ties_by_the_mean():
    rows = [[[0.6, 0.4, 0.0]], [[0.5, 0.3, 0.2]], [[0.0, 1.0, 0.0]], [[0.1, 0.8, 0.1]]]
    scheme = LabelSpace(("a", "b", "c"))
    for models, winner in (("pqr", 0), ("pqrs", 1)):  # two of three for class 0; a tie that the mean gives to class 1
        candidates = Candidates(tuple(models), tuple(models), np.array(rows[: len(models)]))
        params = fit_method("majority", candidates, np.array([0]), scheme, 1)
        found = apply_method(candidates, params, scheme)
        assert found.argmax() == winner
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]], atol=1e-3)


def test_rank_is_the_percentile_within_a_class():
    rows = np.arange(1001) / 1000
    candidates = Candidates(("m/a",), ("m",), np.stack([rows, 1 - rows], axis=1)[None])
    scheme = LabelSpace(("a", "b"))
    found = apply_method(candidates, fit_method("rank", candidates, np.zeros(1001, int), scheme, 1), scheme)
    np.testing.assert_allclose(found[:, 0], rows, atol=0.005)


def test_factor_weights_choose_the_model_that_knows_a_factor():
    draws = generator(6, "factors")
    labels, probabilities = draws.integers(0, 6, 800), []
    for known in SCHEME.factors:
        logits = draws.normal(0, 1, (800, 6)) * 0.1
        of_class = SCHEME.level_codes(known)
        logits += 3 * (of_class[None] == of_class[labels][:, None])
        probabilities.append(softmax(logits))
    candidates = Candidates(("age/a", "mask/a"), ("age", "mask"), np.stack(probabilities[::-1]))
    params = fit_method("factor_weights", candidates, labels, SCHEME, 1)
    assert params["factors"]["mask"]["mask/a"] > 0.95
    assert params["factors"]["age"]["age/a"] > 0.95
    found = apply_method(candidates, params, SCHEME)
    mean = apply_method(candidates, fit_method("mean", candidates, labels, SCHEME, 1), SCHEME)
    assert log_loss(labels, found) < log_loss(labels, mean) - 0.1
    with pytest.raises(UserError, match="factors"):
        fit_method("factor_weights", candidates, labels, LabelSpace(SCHEME.classes), 1)


def test_factor_weights_that_are_equal_give_the_mean_with_its_correlation():
    candidates, labels = drawn(7)
    params = fit_method("factor_weights", candidates, labels, SCHEME, 1)
    equal = dict.fromkeys(candidates.names, 1 / 6)
    params["factors"] = dict.fromkeys(SCHEME.factors, equal)
    np.testing.assert_allclose(apply_method(candidates, params, SCHEME), candidates.probabilities.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("classes", [[0], [0, 3], [0, 1, 4]])
def test_stacking_leaves_classes_without_an_image_to_the_mean(classes):
    candidates, labels = drawn(8)
    few = np.isin(labels, classes)
    params = fit_method("stacking", candidates.rows(few), labels[few], SCHEME, 1)
    found = apply_method(candidates, params, SCHEME)
    mean = model_means(candidates)[1].mean(axis=0)
    others = [code for code in range(6) if code not in classes]
    np.testing.assert_allclose(found[:, others], mean[:, others], atol=1e-6)
    if len(classes) > 1:
        assert log_loss(labels[few], found[few]) < log_loss(labels[few], mean[few])


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


def test_a_large_fit_draws_whole_groups_whatever_the_order():
    groups = generator(11, "groups").integers(0, 40, 1000)
    drawn_rows = subsample(1000, groups, 5, 300)
    assert 200 < len(drawn_rows) <= 300
    assert not set(groups[drawn_rows]) & set(np.delete(groups, drawn_rows))
    order = generator(12, "order").permutation(1000)
    assert set(order[subsample(1000, groups[order], 5, 300)]) == set(drawn_rows)
    assert len(subsample(1000, np.zeros(1000, int), 5, 300)) == 300
    assert len(subsample(1000, None, 5, 300)) == 300
    assert subsample(10, None, 5, 300).tolist() == list(range(10))


def test_lightgbm_learns_like_the_others_and_is_kept_as_text():
    candidates, labels = drawn(14, images=300)
    try:
        import lightgbm  # noqa: F401
    except OSError:
        with pytest.raises(UserError, match="libgomp1"):
            fit_method("lightgbm", candidates, labels, SCHEME, 1)
        return
    params = fit_method("lightgbm", candidates, labels, SCHEME, 1)
    found = apply_method(candidates, json.loads(json.dumps(params)), SCHEME)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    mean = apply_method(candidates, fit_method("mean", candidates, labels, SCHEME, 1), SCHEME)
    assert log_loss(labels, found) < log_loss(labels, mean)
    again = fit_method("lightgbm", candidates, labels, SCHEME, 1)
    np.testing.assert_array_equal(found, apply_method(candidates, again, SCHEME))


def test_kinds_in_order_of_simplicity():
    kinds = ["stacking", "mean+offsets", "weights", "greedy", "greedy+offsets", "mean"]
    assert simplest_first(kinds) == ["mean", "greedy", "weights", "mean+offsets", "greedy+offsets", "stacking"]


def test_what_does_not_fit_is_refused(monkeypatch):
    candidates, labels = drawn(13, images=20)
    with pytest.raises(UserError, match="no kind 'median'"):
        fit_method("median", candidates, labels, SCHEME, 1)
    with pytest.raises(UserError, match="no predictions of net0/view1"):
        params = fit_method("mean", candidates, labels, SCHEME, 1)
        apply_method(candidates.named(["net0/view0"]), params | {"candidates": ["net0/view1"]}, SCHEME)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match="pip install lightgbm"):
        fit_method("lightgbm", candidates, labels, SCHEME, 1)
    with pytest.raises(ValueError, match="labels of shape"):
        fit_method("mean", candidates, labels[1:], SCHEME, 1)
    with pytest.raises(ValueError, match="unique"):
        Candidates(("a", "a"), ("a", "a"), np.ones((2, 1, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        Candidates(("a",), ("a",), np.ones((2, 1, 2)))
