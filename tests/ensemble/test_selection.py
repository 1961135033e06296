"""Nested cross-validation: no label of a fold reaches its own rows; which methods are compared; the rule of choice."""

import numpy as np
import pytest

from foldvote.config.ensemble import METHOD_NAMES, OF_METADATA, Vote
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.group_parts import outer_folds, split_groups
from foldvote.ensemble.methods import apply_method, fit_method
from foldvote.ensemble.selection import (
    EvaluationRows,
    MethodResult,
    applicable_methods,
    compare_methods,
    nested_cv,
    one_standard_error_rule,
    surely_better,
)
from foldvote.errors import UserError
from foldvote.evaluation.metrics import log_loss, macro_f1
from foldvote.runtime.seeding import generator
from support.simulated_votes import ALL, LABEL_SPACE, drawn, noise


@pytest.mark.parametrize("kind", ALL)
def test_f60_labels_of_a_fold_never_reach_its_own_rows(kind):
    candidates, labels = drawn(21, images=240)
    folds = np.arange(240) % 3
    before = nested_cv(kind, candidates, labels, folds, LABEL_SPACE, 1)
    other = np.where(folds == 1, (labels + 1) % 6, labels)
    after = nested_cv(kind, candidates, other, folds, LABEL_SPACE, 1)
    own = folds == 1
    assert (before.probabilities[own] == after.probabilities[own]).all()
    assert (before.codes[own] == after.codes[own]).all()
    np.testing.assert_allclose(before.probabilities.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("kind", ["weights", "stacking", "mean+offsets"])
def test_labels_of_other_folds_do_reach(kind):
    candidates, labels = drawn(21, images=240)
    folds = np.arange(240) % 3
    other = np.where(folds == 1, (labels + 1) % 6, labels)
    before, after = (nested_cv(kind, candidates, given, folds, LABEL_SPACE, 1) for given in (labels, other))
    rest = folds != 1
    changed = (before.probabilities[rest] != after.probabilities[rest]).any()
    assert changed or (before.codes[rest] != after.codes[rest]).any()


@pytest.mark.parametrize("kind", ["greedy", "weights"])
def test_a_candidate_that_knows_nothing_changes_no_nested_score(kind):
    candidates, labels = drawn(22, images=4000)
    folds = np.arange(4000) % 5
    plain, more = (nested_cv(kind, own, labels, folds, LABEL_SPACE, 1) for own in (candidates, noise(candidates)))
    assert abs(log_loss(labels, more.probabilities) - log_loss(labels, plain.probabilities)) < 0.005
    assert abs(macro_f1(labels, more.codes, 6) - macro_f1(labels, plain.codes, 6)) < 0.01


def test_a_nested_row_is_what_the_other_folds_fit():
    candidates, labels = drawn(23)
    folds = np.arange(300) % 2
    found = nested_cv("greedy", candidates, labels, folds, LABEL_SPACE, 1).probabilities
    params = fit_method("greedy", candidates.rows(folds == 0), labels[folds == 0], LABEL_SPACE, 1)
    assert (found[folds == 1] == apply_method(candidates.rows(folds == 1), params, LABEL_SPACE)).all()


def test_what_fits_nothing_needs_no_folds_and_what_fits_needs_two():
    candidates, labels = drawn(24)
    one = np.zeros(300, int)
    whole = apply_method(candidates, fit_method("mean", candidates, labels, LABEL_SPACE, 1), LABEL_SPACE)
    assert (nested_cv("mean", candidates, labels, one, LABEL_SPACE, 1).probabilities == whole).all()
    for folds in (one, np.arange(300) % 2 - 1, np.arange(200) % 2):
        with pytest.raises(ValueError, match="expected two or more"):
            nested_cv("greedy", candidates, labels, folds, LABEL_SPACE, 1)


def test_parts_keep_groups_whole_and_are_the_same_in_any_order():
    draws = np.random.default_rng(5)
    groups = np.repeat(np.arange(53), draws.integers(1, 9, 53))
    parts = split_groups(groups, 5, 1)
    assert len(np.unique(np.stack([groups, parts]), axis=1).T) == 53
    sizes = np.bincount(parts, minlength=5)
    assert sizes.max() - sizes.min() <= 8
    order = draws.permutation(len(groups))
    assert (split_groups(groups[order], 5, 1) == parts[order]).all()
    assert (split_groups(groups, 5, 2) != parts).any()
    assert set(split_groups(np.array([7, 7, 9]), 5, 1)) == {0, 1}
    with pytest.raises(UserError, match="two persons"):
        split_groups(np.array([7, 7]), 5, 1)
    assert (outer_folds(groups % 3, groups, 1) == groups % 3).all()
    for folds in (np.zeros_like(groups), groups % 3 - 1):
        assert (outer_folds(folds, groups, 1) == parts).all()


def test_the_simplest_within_one_standard_error_is_chosen():
    kinds = ["mean", "greedy", "stacking"]
    scores = {"mean": 0.780, "greedy": 0.790, "stacking": 0.791}
    assert one_standard_error_rule(kinds, scores, {"mean": 0.02, "greedy": 0.005}) == "mean"
    assert one_standard_error_rule(kinds, scores, {"mean": 0.01, "greedy": 0.005}) == "greedy"
    assert one_standard_error_rule(kinds, scores, {"mean": 0.0, "greedy": 0.0}) == "stacking"
    assert (
        one_standard_error_rule(kinds, scores, {"mean": 0.0, "greedy": 0.0, "stacking": 0.0}, higher_is_better=False)
        == "mean"
    )
    assert one_standard_error_rule(kinds, dict.fromkeys(kinds, 0.5), dict.fromkeys(kinds, 0.0)) == "mean"
    for broken, errors in (({}, {}), (scores | {"mean": float("nan")}, {}), (scores, dict.fromkeys(kinds, -1.0))):
        with pytest.raises(ValueError, match=r"finite|standard error"):
            one_standard_error_rule(kinds if broken else [], broken, errors)


def test_methods_are_compared_where_they_can_differ_from_the_mean():
    several, _ = drawn(25)
    views, _ = drawn(25, skills=(1.0,))
    single, _ = drawn(25, skills=(1.0,), views=1)
    settings = Vote(kinds=[*METHOD_NAMES, "greedy+offsets"])
    every = [
        *METHOD_NAMES[: METHOD_NAMES.index("factor_weights") + 1],
        "greedy+offsets",
        "class_weights",
        "stacking",
        "lightgbm",
    ]
    assert applicable_methods(settings, several, LABEL_SPACE) == every
    without_factors = LabelSpace(LABEL_SPACE.classes)
    assert set(every) - set(applicable_methods(settings, several, without_factors)) == {"factor_weights"}
    assert set(every) - set(applicable_methods(settings, views, LABEL_SPACE)) == {
        *("best_model", "majority", "factor_weights", "class_weights")
    }
    assert applicable_methods(settings, single, LABEL_SPACE) == ["mean", "stacking", "lightgbm"]
    beside, _ = drawn(25, metadata=True)
    assert applicable_methods(settings, beside, LABEL_SPACE) == [*every, *OF_METADATA]
    assert applicable_methods(Vote(kinds=["rank"], use="majority"), single, LABEL_SPACE) == ["mean", "majority"]


def test_without_a_reserve_only_offsets_that_no_label_fits_are_chosen():
    draws, space = generator(26, "rare"), LabelSpace(("often", "less", "rare"))
    rare = draws.uniform(0, 0.4, 3000)
    true = np.stack([0.6 * (1 - rare), 0.4 * (1 - rare), rare], axis=1)
    labels = np.array([draws.choice(3, p=one) for one in true])
    candidates, rows = Candidates(("net/identity",), ("net",), true[None]), np.arange(3000)
    evaluation = EvaluationRows(labels, rows % 5, rows)
    both = ["mean", "mean+expected", "mean+offsets"]
    found = [
        compare_methods(candidates, evaluation, space, Vote(kinds=kinds, draws=200), 1)
        for kinds in (both, ["mean", "mean+offsets"])
    ]
    assert [one.chosen for one in found] == ["mean+expected", "mean"]
    scores = [found[0].results[kind].nested["macro_f1"] for kind in both]
    assert min(scores[1:]) > scores[0] + 0.03  # each is surely better, and one of them was taken
    accuracy = compare_methods(candidates, evaluation, space, Vote(kinds=both, draws=200, score="accuracy"), 1)
    assert accuracy.chosen == "mean"


def test_the_mean_is_left_only_for_what_is_surely_better():
    draws = generator(27, "draws").normal(0, 0.03, 400)

    def result(kind, value, noise):
        return MethodResult(kind, {}, {"macro_f1": value}, {}, {"macro_f1": value + noise})

    mean = result("mean", 0.40, draws * 0)
    for value, chosen in ((0.38, {"mean"}), (0.43, {"mean"}), (0.48, {"mean", "rank"})):
        assert surely_better({"mean": mean, "rank": result("rank", value, draws)}, "macro_f1").keys() == chosen
