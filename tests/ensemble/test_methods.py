"""Ensemble methods: what must hold for each of them, for any candidates."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from foldvote.config.ensemble import EXPECTED, METHOD_NAMES, OF_METADATA, OFFSETS, Vote
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.methods import METHODS, apply_method, choose_classes, fit_method, simplest_first
from foldvote.errors import UserError
from foldvote.evaluation.metrics import macro_f1
from foldvote.runtime.seeding import generator
from support.simulated_votes import ALL, LABEL_SPACE, SEEDS, drawn

ROOT = Path(__file__).resolve().parents[2]
WEIGHED = ["mean", "geometric", "best_model", "greedy", "weights"]


def test_every_method_has_an_entry_in_order_of_complexity_and_a_row_in_the_manual():
    assert tuple(METHODS) == METHOD_NAMES
    rows = (ROOT / "config/README.md").read_text(encoding="utf-8").split("\n| kind, from the simplest on |")[1]
    names = [line.split("`")[1] for line in rows.split("\n\n")[0].splitlines()[2:]]
    assert tuple(names[:-2]) == METHOD_NAMES and names[-2:] == ["mean" + EXPECTED, "mean" + OFFSETS]
    assert set(METHOD_NAMES) - set(Vote().kinds) == {"lightgbm", "lightgbm_metadata"}


@pytest.mark.parametrize("kind", [*ALL, "stacking_metadata"])
def test_a_method_gives_probabilities_from_plain_json_image_by_image(kind):
    candidates, labels = drawn(1, metadata=kind in OF_METADATA)
    params = fit_method(kind, candidates, labels, LABEL_SPACE, 3, folds=np.arange(300) % 3)
    assert json.loads(json.dumps(params, allow_nan=False)) == params
    found = apply_method(candidates, params, LABEL_SPACE)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    pieces = [apply_method(candidates.rows(slice(at, at + 37)), params, LABEL_SPACE) for at in range(0, 300, 37)]
    np.testing.assert_allclose(np.concatenate(pieces), found, atol=1e-12)
    assert macro_f1(labels, choose_classes(found, params), 6) > 0.3


@pytest.mark.parametrize("kind", [*ALL, "stacking_metadata"])
@given(seed=SEEDS)
@settings(max_examples=3, deadline=None)
def test_the_order_of_candidates_and_of_images_does_not_matter(kind, seed):
    candidates, labels = drawn(seed, images=150, metadata=kind in OF_METADATA)
    folds, draws = np.arange(150) % 2, generator(seed, "order")
    found = apply_method(candidates, fit_method(kind, candidates, labels, LABEL_SPACE, 3, folds=folds), LABEL_SPACE)
    order = draws.permutation(len(candidates.names))
    mixed = candidates.named([candidates.names[at] for at in order])
    params = fit_method(kind, mixed, labels, LABEL_SPACE, 3, folds=folds)
    assert (apply_method(mixed, params, LABEL_SPACE) == found).all()
    assert (apply_method(candidates, params, LABEL_SPACE) == found).all()
    order = draws.permutation(150)
    params = fit_method(kind, candidates.rows(order), labels[order], LABEL_SPACE, 3, folds=folds[order])
    near = 0 if kind == "mean" else 1e-3 if kind.startswith("stacking") else 1e-5
    np.testing.assert_allclose(apply_method(candidates, params, LABEL_SPACE), found, atol=near, rtol=0)


@pytest.mark.parametrize("kind", [*WEIGHED, "factor_weights", "class_weights"])
def test_one_candidate_alone_is_the_result(kind):
    candidates, labels = drawn(2, skills=(1.5,), views=1)
    found = apply_method(candidates, fit_method(kind, candidates, labels, LABEL_SPACE, 3), LABEL_SPACE)
    np.testing.assert_allclose(found, candidates.probabilities[0], atol=1e-6 if kind == "geometric" else 2e-7)
    if kind in ("mean", "greedy", "weights", "best_model"):
        assert (found == candidates.probabilities[0]).all()


@pytest.mark.parametrize("kind", [*WEIGHED, "majority", "rank", "tempered", "stacking"])
def test_two_identical_views_are_no_test_time_augmentation(kind):
    single, labels = drawn(3, skills=(1.5, 1.2), views=1)
    names = tuple(f"{name}-{copy}" for name in single.names for copy in "ab")
    twice = Candidates(names, tuple(np.repeat(single.models, 2)), np.repeat(single.probabilities, 2, axis=0))
    votes = [apply_method(own, fit_method(kind, own, labels, LABEL_SPACE, 3), LABEL_SPACE) for own in (single, twice)]
    np.testing.assert_allclose(votes[0], votes[1], atol=0.02 if kind == "greedy" else 1e-4)


def test_a_fit_gets_no_more_images_than_the_method_can_use_in_whole_groups_and_of_the_rows_allowed(monkeypatch):
    candidates, labels = drawn(17, images=400)
    groups, allowed, seen = np.arange(400) // 7, np.arange(50, 390), []

    def noted(given, codes, context):
        seen.append((given.probabilities[0], codes, context.folds))
        return METHODS["rank"].fit(given, codes, context)

    monkeypatch.setitem(METHODS, "greedy", replace(METHODS["rank"], fit=noted, most_images=100))
    fit_method("greedy", candidates, labels, LABEL_SPACE, 3, folds=np.arange(400), groups=groups, rows=allowed)
    probabilities, codes, rows = seen[0]
    assert 90 < len(rows) <= 100 and set(rows) <= set(allowed)
    assert all(np.isin(allowed[groups[allowed] == group], rows).all() for group in groups[rows])
    assert (codes == labels[rows]).all() and (probabilities == candidates.probabilities[0][rows]).all()


def test_kinds_in_order_of_simplicity():
    kinds = ["stacking", "mean+offsets", "weights", "greedy", "greedy+offsets", "mean+expected", "mean"]
    ordered = ["mean", "mean+expected", "greedy", "weights", "mean+offsets", "greedy+offsets", "stacking"]
    assert simplest_first(kinds) == ordered


def test_what_does_not_fit_is_refused(monkeypatch):
    candidates, labels = drawn(13, images=20)
    with pytest.raises(UserError, match="no kind 'magic'"):
        fit_method("magic", candidates, labels, LABEL_SPACE, 1)
    with pytest.raises(UserError, match="no predictions of net0/view1"):
        params = fit_method("mean", candidates, labels, LABEL_SPACE, 1)
        apply_method(candidates.named(["net0/view0"]), params | {"candidates": ["net0/view1"]}, LABEL_SPACE)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match="pip install lightgbm"):
        fit_method("lightgbm", candidates, labels, LABEL_SPACE, 1)
    with pytest.raises(ValueError, match="labels of shape"):
        fit_method("mean", candidates, labels[1:], LABEL_SPACE, 1)
    with pytest.raises(ValueError, match="unique"):
        Candidates(("a", "a"), ("a", "a"), np.ones((2, 1, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        Candidates(("a",), ("a",), np.ones((2, 1, 2)))
