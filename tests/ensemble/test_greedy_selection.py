"""Greedy ensemble selection: it follows the metric, and never does worse than the best candidate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates, mixture_of
from foldvote.ensemble.greedy_selection import ensemble_selection
from foldvote.ensemble.methods import fit_method
from foldvote.evaluation.metrics import log_loss
from support.simulated_votes import SEEDS, drawn


def test_best_model_and_greedy_follow_the_metric():
    labels = np.array([0, 1, 0, 1])
    sure = np.array([[0.99, 0.01], [0.01, 0.99], [0.99, 0.01], [0.51, 0.49]])
    unsure = np.array([[0.51, 0.49], [0.49, 0.51], [0.51, 0.49], [0.49, 0.51]])
    candidates = Candidates(("sure/a", "unsure/a"), ("sure", "unsure"), np.stack([sure, unsure]))
    label_space = LabelSpace(("no", "yes"))
    for kind in ("best_model", "greedy"):
        by_loss = fit_method(kind, candidates, labels, label_space, 1)["weights"]
        by_f1 = fit_method(kind, candidates, labels, label_space, 1, metric="macro_f1")["weights"]
        assert by_loss["sure/a"] > 0.5
        assert by_f1 == {"sure/a": 0.0, "unsure/a": 1.0}


@given(SEEDS, st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_greedy_is_never_worse_than_the_best_candidate(seed, models):
    candidates, labels = drawn(seed, skills=tuple(range(1, models + 1)), views=1, images=60)
    weights = ensemble_selection(candidates, labels, 1)
    assert sum(weights.values()) == pytest.approx(1)
    alone = min(log_loss(labels, probabilities) for probabilities in candidates.probabilities)
    assert log_loss(labels, mixture_of(candidates, weights)) <= alone + 1e-9


def test_with_more_than_five_candidates_the_seed_draws_the_bags():
    candidates, labels = drawn(6, skills=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7), views=2)
    assert ensemble_selection(candidates, labels, 1) == ensemble_selection(candidates, labels, 1)
    assert ensemble_selection(candidates, labels, 1) != ensemble_selection(candidates, labels, 2)
