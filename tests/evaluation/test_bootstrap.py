"""The bootstrap over persons: against the scores themselves, against a plain loop, and whether it covers the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.evaluation.bootstrap import BETTER, METRICS, GroupSums, add, bootstrap, empty_sums, group_sums, scores
from foldvote.evaluation.calibration import brier, ece
from foldvote.evaluation.intervals import compare, interval
from foldvote.evaluation.metrics import accuracy, log_loss, macro_f1
from foldvote.runtime.seeding import generator


def drawn(seed, images=60, classes=4, groups=9, sharpness=2.0):
    """Labels, probabilities (some of them 0 and 1) and groups of some images."""
    draws = generator(seed, "images")
    powers = np.exp(sharpness * draws.standard_normal((images, classes)))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    certain = draws.random(images) < 0.1
    probabilities[certain] = np.eye(classes)[draws.integers(classes, size=certain.sum())]
    return draws.integers(classes, size=images), probabilities, draws.integers(groups, size=images)


def expected(labels, probabilities, predicted):
    return {
        "macro_f1": macro_f1(labels, predicted, probabilities.shape[1]),
        "accuracy": accuracy(labels, predicted),
        "log_loss": log_loss(labels, probabilities),
        "brier": brier(labels, probabilities),
        "ece": ece(labels, probabilities),
    }


cases = st.builds(drawn, st.integers(0, 2**32), st.integers(1, 80), st.integers(2, 19), st.integers(1, 12))


@given(cases)
@settings(max_examples=60, deadline=None)
def test_scores_of_sums_are_the_scores(case):
    labels, probabilities, groups = case
    found = scores(group_sums(labels, probabilities, groups, probabilities.shape[1]))
    assert tuple(found) == METRICS == tuple(BETTER)
    assert found == pytest.approx(expected(labels, probabilities, probabilities.argmax(axis=1)), rel=1e-12, abs=1e-12)


def test_a_certain_miss_costs_what_it_costs_in_metrics():
    labels, probabilities = np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]])
    found = scores(group_sums(labels, probabilities, np.array([0, 1]), 2))
    assert found["log_loss"] == log_loss(labels, probabilities) > 18
    assert (found["brier"], found["ece"], found["accuracy"]) == (1.0, 0.5, 0.5)


def test_another_rule_of_decision_changes_the_choice_and_its_confidence():
    labels, probabilities, groups = drawn(1)
    predicted = np.argsort(probabilities, axis=1)[:, -2]  # the second most probable
    plain = scores(group_sums(labels, probabilities, groups, 4))
    found = scores(group_sums(labels, probabilities, groups, 4, predicted))
    assert found["macro_f1"] == pytest.approx(macro_f1(labels, predicted, 4), rel=1e-12)
    assert found["accuracy"] == accuracy(labels, predicted) != plain["accuracy"]
    assert (found["log_loss"], found["brier"]) == (plain["log_loss"], plain["brier"])
    # All in one bin: confidence is the probability of the class that was chosen.
    sure = np.full((4, 2), [0.7, 0.3])
    ones = group_sums(np.array([1, 1, 1, 0]), sure, np.zeros(4, int), 2, predicted=np.ones(4, int))
    assert scores(ones)["ece"] == pytest.approx(0.75 - 0.3)


@given(cases, st.integers(1, 17), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_pieces_and_the_order_of_images_change_nothing(case, piece, seed):
    labels, probabilities, groups = case
    classes, number = probabilities.shape[1], int(groups.max()) + 1
    whole = group_sums(labels, probabilities, groups, classes)
    order = generator(seed, "order").permutation(len(labels))
    streamed = empty_sums(number, classes)
    for start in range(0, len(order), piece):
        some = order[start : start + piece]
        assert add(streamed, labels[some], probabilities[some], groups[some]) is streamed
    np.testing.assert_allclose(streamed.values, whole.values, rtol=1e-12, atol=1e-12)
    rows = bootstrap({"whole": whole, "streamed": streamed}, 20)
    for metric in METRICS:
        np.testing.assert_allclose(rows["whole"][metric], rows["streamed"][metric], rtol=1e-9, atol=1e-12)


def test_many_images_are_added_in_pieces_that_make_no_difference():
    labels, probabilities, groups = drawn(2, images=70_000, groups=50)  # more than one piece of `add`
    halves = [group_sums(labels[part], probabilities[part], groups[part], 4) for part in np.split(np.arange(70_000), 2)]
    added = GroupSums(halves[0].values + halves[1].values, 4)
    whole = group_sums(labels, probabilities, groups, 4)
    np.testing.assert_allclose(whole.values, added.values, rtol=1e-11, atol=1e-11)
    assert scores(whole) == pytest.approx(expected(labels, probabilities, probabilities.argmax(axis=1)), rel=1e-9)


def test_a_draw_is_the_scores_of_the_images_of_the_groups_drawn(monkeypatch):
    labels, probabilities, groups = drawn(3)
    sums = group_sums(labels, probabilities, groups, 4)
    times = []
    real = np.bincount

    def noted(values, minlength):
        times.append(real(values, minlength=minlength))
        return times[-1]

    with monkeypatch.context() as patch:
        patch.setattr(np, "bincount", noted)
        found = bootstrap({"row": sums}, 25, seed=4)["row"]
    assert len(times) == 25 and all(one.sum() == 9 for one in times)
    for draw, often in enumerate(times):
        images = np.repeat(np.arange(len(labels)), often[groups])
        of_draw = expected(labels[images], probabilities[images], probabilities[images].argmax(axis=1))
        assert {name: values[draw] for name, values in found.items()} == pytest.approx(of_draw, rel=1e-9, abs=1e-12)


def test_draws_are_shared_by_rows_of_the_same_groups_and_by_nothing_else(monkeypatch):
    labels, probabilities, groups = drawn(5)
    other = probabilities[:, ::-1]
    rows = {
        "a": group_sums(labels, probabilities, groups, 4),
        "b": group_sums(labels, other, groups, 4),
        "again": group_sums(labels, probabilities, groups, 4),
        "few": group_sums(labels[groups < 4], probabilities[groups < 4], groups[groups < 4], 4),
    }
    together = bootstrap(rows, 40, seed=6)
    assert list(together) == list(rows)
    for name, sums in rows.items():  # the rows beside it, the number of draws and the size of a piece do not matter
        monkeypatch.setattr("foldvote.evaluation.bootstrap._PIECE_BYTES", 8 * 9 * 7)
        alone = bootstrap({name: sums}, 30, seed=6)[name]
        for metric in METRICS:
            np.testing.assert_allclose(alone[metric], together[name][metric][:30], rtol=1e-12)
    # Accuracy and its complement add up in every draw only if both rows saw the same persons.
    right = probabilities.argmax(axis=1) == labels
    wrong_class = np.where(right, (labels + 1) % 4, labels)
    mirrored = bootstrap({"a": rows["a"], "m": group_sums(labels, probabilities, groups, 4, wrong_class)}, 40, seed=6)
    np.testing.assert_allclose(mirrored["a"]["accuracy"] + mirrored["m"]["accuracy"], 1.0, rtol=1e-12)
    assert mirrored["a"]["accuracy"].std() > 0
    other_seed = bootstrap({"a": rows["a"]}, 40, seed=7)["a"]["log_loss"]
    assert not np.isclose(other_seed, together["a"]["log_loss"]).all()


def test_a_row_of_some_groups_draws_among_these_alone():
    labels, probabilities, groups = drawn(8)
    some = groups >= 5
    part = add(empty_sums(20, 4), labels[some], probabilities[some], groups[some])
    packed = group_sums(labels[some], probabilities[some], groups[some], 4)  # fewer empty groups behind
    rows = bootstrap({"part": part, "packed": packed}, 50)
    np.testing.assert_array_equal(rows["part"]["accuracy"], rows["packed"]["accuracy"])
    by_group = [np.mean((probabilities.argmax(axis=1) == labels)[groups == code]) for code in range(5, 9)]
    assert min(by_group) <= rows["part"]["accuracy"].min() < rows["part"]["accuracy"].max() <= max(by_group)


def test_equal_rows_differ_by_nothing_and_a_better_one_is_found():
    labels, probabilities, groups = drawn(9, images=600, groups=80)
    better = 0.8 * probabilities + 0.2 * np.eye(4)[labels]
    rows = {
        name: group_sums(labels, values, groups, 4)
        for name, values in (("worse", probabilities), ("better", better), ("copy", better.copy()))
    }
    found = bootstrap(rows, 200)
    for metric in METRICS:
        assert compare(found["better"][metric], found["copy"][metric], BETTER[metric]) == (0, 0, 0, 0.5)
    for metric in ("macro_f1", "accuracy", "log_loss", "brier"):
        up = BETTER[metric] == "higher"
        points = scores(rows["better"])[metric], scores(rows["worse"])[metric]
        result = compare(found["better"][metric], found["worse"][metric], BETTER[metric], points=points)
        assert result.better == 1.0 and result.difference == points[0] - points[1]
        assert 0 < result.low < result.difference < result.high if up else result.high < 0
        back = compare(found["worse"][metric], found["better"][metric], BETTER[metric])
        assert back.better == 0.0 and (back.low, back.high) == pytest.approx((-result.high, -result.low))


def test_compare_counts_draws_and_halves_ties():
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 4.0, 3.0])
    assert compare(a, b, "higher").better == 0.625
    assert compare(a, b, "lower").better == 0.375
    assert compare(a, b, "higher").difference == 0.25


def test_intervals_of_persons_cover_the_truth_and_those_of_images_do_not():
    """Persons of 7 photographs that mostly share their fate: 85 % of images are right, in persons' blocks."""
    persons, photographs, truth, trials = 120, 7, 0.85, 300
    draws = generator(0, "coverage")
    person = np.repeat(np.arange(persons), photographs)
    by_person, by_image = {}, {}
    for trial in range(trials):
        fate = np.repeat(draws.random(persons) < truth, photographs)
        right = np.where(draws.random(person.size) < 0.8, fate, draws.random(person.size) < truth)
        probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        labels = np.zeros(person.size, int)
        by_person[trial] = group_sums(labels, probabilities, person, 2)
        by_image[trial] = group_sums(labels, probabilities, np.arange(person.size), 2)

    def coverage(rows):
        found = [interval(row["accuracy"]) for row in bootstrap(rows, 400).values()]
        return np.mean([low <= truth <= high for low, high in found])

    assert 0.91 <= coverage(by_person) <= 0.985
    assert coverage(by_image) < 0.75


def test_interval_is_the_middle_part():
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(np.arange(3.0), 95)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 2])}, "labels run from 0 to 2"),
        ({"groups": np.array([0, -1])}, "groups run from -1 to 0"),
        ({"groups": np.array([0, 3])}, "groups run from 0 to 3, outside 0 to 2"),
        ({"groups": np.array([0])}, "groups have the shape"),
        ({"predicted": np.array([0, 2])}, "predictions run from 0 to 2"),
        ({"probabilities": np.full((2, 3), 0.5)}, "expected \\(2, 2\\)"),
        ({"probabilities": np.array([[0.5, 0.5], [np.nan, 1.0]])}, "nan"),
        ({"probabilities": np.array([[0.5, 0.5], [-3.0, 2.0]])}, "outside 0 to 1"),
    ],
)
def test_faults_are_refused(change, message):
    images = {"labels": np.array([0, 1]), "probabilities": np.full((2, 2), 0.5), "groups": np.array([0, 1])}
    with pytest.raises(ValueError, match=message):
        add(empty_sums(3, 2), **(images | change))


def test_rows_without_images_and_unfit_draws_are_refused():
    with pytest.raises(ValueError, match="row void has no image"):
        bootstrap({"void": empty_sums(3, 2)}, 10)
    assert set(scores(empty_sums(3, 2)).values()) == {0.0}
    with pytest.raises(ValueError, match="equal length"):
        compare(np.zeros(3), np.zeros(4), "higher")
    with pytest.raises(ValueError, match="neither"):
        compare(np.zeros(3), np.zeros(3), "more")
