"""Fitted weights: they are non-negative and sum to 1, are optimal, and are larger for better models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.methods import apply_method, fit_method
from foldvote.ensemble.weighting import GAP, fit_mixture_weights, gains
from foldvote.errors import UserError
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator
from support.simulated_votes import LABEL_SPACE, SEEDS, drawn, noise


@pytest.mark.parametrize("kind", ["greedy", "weights", "best_model", "mean", "factor_weights", "class_weights"])
@given(seed=SEEDS)
@settings(max_examples=4, deadline=None)
def test_weights_sum_to_one_and_none_is_negative(kind, seed):
    candidates, labels = drawn(seed, images=80)
    params = fit_method(kind, candidates, labels, LABEL_SPACE, 3)
    if kind == "class_weights":
        rows = np.array(list(params["class_weights"].values())).T
    elif kind == "factor_weights":
        rows = np.array([list(own.values()) for own in params["factors"].values()])
    else:
        rows = np.array([list(params["weights"].values())])
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("kind", ["greedy", "weights"])
def test_a_candidate_that_knows_nothing_gets_no_weight(kind):
    candidates, labels = drawn(4, images=1000)
    params = fit_method(kind, noise(candidates), labels, LABEL_SPACE, 3)
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
        kind: log_loss(
            labels, apply_method(candidates, fit_method(kind, candidates, labels, LABEL_SPACE, 3), LABEL_SPACE)
        )
        for kind in ("mean", "weights", "greedy", "class_weights")
    }
    assert losses["weights"] < losses["mean"] - 0.05
    assert losses["weights"] <= losses["greedy"] + 1e-5
    assert losses["class_weights"] < losses["mean"] - 0.05


def test_factor_weights_choose_the_model_that_knows_a_factor():
    draws = generator(6, "factors")
    labels, probabilities = draws.integers(0, 6, 800), []
    for known in LABEL_SPACE.factors:
        logits = draws.normal(0, 1, (800, 6)) * 0.1
        of_class = LABEL_SPACE.level_codes(known)
        logits += 3 * (of_class[None] == of_class[labels][:, None])
        probabilities.append(softmax(logits))
    candidates = Candidates(("age/a", "mask/a"), ("age", "mask"), np.stack(probabilities[::-1]))
    params = fit_method("factor_weights", candidates, labels, LABEL_SPACE, 1)
    assert params["factors"]["mask"]["mask/a"] > 0.95
    assert params["factors"]["age"]["age/a"] > 0.95
    found = apply_method(candidates, params, LABEL_SPACE)
    mean = apply_method(candidates, fit_method("mean", candidates, labels, LABEL_SPACE, 1), LABEL_SPACE)
    assert log_loss(labels, found) < log_loss(labels, mean) - 0.1
    with pytest.raises(UserError, match="factors"):
        fit_method("factor_weights", candidates, labels, LabelSpace(LABEL_SPACE.classes), 1)


def test_factor_weights_that_are_equal_give_the_mean_with_its_correlation():
    candidates, labels = drawn(7)
    params = fit_method("factor_weights", candidates, labels, LABEL_SPACE, 1)
    equal = dict.fromkeys(candidates.names, 1 / 6)
    params["factors"] = dict.fromkeys(LABEL_SPACE.factors, equal)
    found = apply_method(candidates, params, LABEL_SPACE)
    np.testing.assert_allclose(found, candidates.probabilities.mean(axis=0), atol=1e-6)
