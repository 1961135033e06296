"""Methods with few or no fitted numbers, by hand where the answer is known."""

import numpy as np

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.methods import apply_method, fit_method
from foldvote.evaluation.metrics import macro_f1
from foldvote.evaluation.probabilities import softmax
from support.simulated_votes import LABEL_SPACE, drawn


def test_an_overconfident_candidate_outweighs_no_other_once_it_is_tempered():
    candidates, labels = drawn(15, skills=(1.5, 1.5), views=1, images=1000)
    logs = np.log(candidates.probabilities.astype(np.float64))
    overconfident = Candidates(candidates.names, candidates.models, softmax(logs * np.array([1.0, 4.0])[:, None, None]))
    mean, tempered = (
        apply_method(overconfident, fit_method(kind, overconfident, labels, LABEL_SPACE, 1), LABEL_SPACE)
        for kind in ("mean", "tempered")
    )
    as_they_were = apply_method(candidates, fit_method("tempered", candidates, labels, LABEL_SPACE, 1), LABEL_SPACE)
    np.testing.assert_allclose(tempered, as_they_were, atol=1e-4)
    assert macro_f1(labels, tempered.argmax(axis=1), 6) > macro_f1(labels, mean.argmax(axis=1), 6)


def test_majority_by_hand_and_its_ties_by_the_mean():
    rows = [[[0.6, 0.4, 0.0]], [[0.5, 0.3, 0.2]], [[0.0, 1.0, 0.0]], [[0.1, 0.8, 0.1]]]
    label_space = LabelSpace(("a", "b", "c"))
    for models, winner in (("pqr", 0), ("pqrs", 1)):  # two of three for class 0; a tie that the mean gives to class 1
        candidates = Candidates(tuple(models), tuple(models), np.array(rows[: len(models)]))
        params = fit_method("majority", candidates, np.array([0]), label_space, 1)
        found = apply_method(candidates, params, label_space)
        assert found.argmax() == winner
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]], atol=1e-3)


def test_rank_is_the_percentile_within_a_class():
    rows = np.arange(1001) / 1000
    candidates = Candidates(("m/a",), ("m",), np.stack([rows, 1 - rows], axis=1)[None])
    label_space = LabelSpace(("a", "b"))
    found = apply_method(candidates, fit_method("rank", candidates, np.zeros(1001, int), label_space, 1), label_space)
    np.testing.assert_allclose(found[:, 0], rows, atol=0.005)
