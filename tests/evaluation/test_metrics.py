"""The scores: against scikit-learn on drawn cases, and by hand where the answer is known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.evaluation.metrics import accuracy, class_scores, confusion, factor_scores, log_loss, macro_f1, score
from foldvote.runtime.seeding import generator

HOME = factor_label_space(
    {
        "mask": ("wear", "incorrect", "not-wear"),
        "gender": ("male", "female"),
        "age": ("under30", "30to59", "60plus"),
    }
)


@st.composite
def cases(draw, classes=None):
    """Labels, probabilities and the number of classes; classes that are absent on either side are frequent."""
    number = classes or draw(st.integers(2, 7))
    images = draw(st.integers(1, 40))
    labels = draw(st.lists(st.integers(0, number - 1), min_size=images, max_size=images))
    draws = generator(draw(st.integers(0, 2**32)), "probabilities")
    sharpness = draw(st.sampled_from([0.1, 1.0, 30.0]))
    powers = np.exp(sharpness * draws.standard_normal((images, number)))
    return np.array(labels), powers / powers.sum(axis=1, keepdims=True), number


@given(cases())
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_scikit_learn(case):
    labels, probabilities, number = case
    codes, predicted = list(range(number)), probabilities.argmax(axis=1)
    counts = confusion(labels, predicted, number)
    assert (counts == reference.confusion_matrix(labels, predicted, labels=codes)).all()
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=codes, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(class_scores(counts)[name], values, rtol=1e-12)
    f1 = reference.f1_score(labels, predicted, labels=codes, average="macro", zero_division=0)
    assert macro_f1(labels, predicted, number) == pytest.approx(f1, rel=1e-12)
    assert accuracy(labels, predicted) == pytest.approx(reference.accuracy_score(labels, predicted), rel=1e-12)
    assert log_loss(labels, probabilities) == pytest.approx(
        reference.log_loss(labels, probabilities, labels=codes), rel=1e-9, abs=1e-12
    )


@given(cases(classes=18))
@settings(max_examples=30, deadline=None)
def test_factor_scores_are_those_of_the_summed_probabilities(case):
    labels, probabilities, _ = case
    cube = probabilities.reshape(-1, 3, 2, 3)
    true = dict(zip(("mask", "gender", "age"), np.unravel_index(labels, (3, 2, 3)), strict=True))
    summed = {"mask": cube.sum((2, 3)), "gender": cube.sum((1, 3)), "age": cube.sum((1, 2))}
    found = factor_scores(labels, probabilities, HOME)
    assert list(found) == ["mask", "gender", "age"]
    for name, values in summed.items():
        codes, predicted = list(range(values.shape[1])), values.argmax(1)
        f1 = reference.f1_score(true[name], predicted, labels=codes, average="macro", zero_division=0)
        assert found[name]["macro_f1"] == pytest.approx(f1, rel=1e-12)
        assert found[name]["accuracy"] == pytest.approx(np.mean(true[name] == predicted), rel=1e-12)


def test_a_factor_is_chosen_by_its_own_sum_and_not_by_the_best_class():
    label_space = factor_label_space({"mask": ("wear", "not"), "age": ("young", "old")})
    probabilities = np.array([[0.4, 0.0, 0.3, 0.3]])  # the best class is wear-young, but not-wear has 0.6 in all
    found = score(np.array([2]), probabilities, label_space)
    assert found["accuracy"] == 0.0
    assert found["factors"]["mask"]["accuracy"] == 1.0
    assert found["factors"]["age"]["accuracy"] == 1.0


def test_a_class_neither_present_nor_predicted_counts_zero():
    labels = np.array([0, 0, 1, 1])
    assert macro_f1(labels, labels, 2) == 1.0
    assert macro_f1(labels, labels, 4) == 0.5


def test_log_loss_of_a_certain_wrong_answer_is_finite():
    found = log_loss(np.array([0]), np.array([[0.0, 1.0]]))
    assert found == pytest.approx(-math.log(np.finfo(float).eps))
    assert log_loss(np.array([1]), np.array([[0.0, 1.0]])) == 0.0


def test_score_is_json_and_consistent():
    labels, probabilities = np.arange(18), np.eye(18)
    found = json.loads(json.dumps(score(labels, probabilities, HOME), allow_nan=False))
    assert (found["images"], found["macro_f1"], found["accuracy"], found["log_loss"]) == (18, 1.0, 1.0, 0.0)
    assert found["classes"]["incorrect-female-60plus"] == dict.fromkeys(
        ("precision", "recall", "f1", "support", "roc_auc"), 1
    )
    assert found["confusion"] == np.eye(18, dtype=int).tolist()
    assert found["factors"]["age"] == dict.fromkeys(("accuracy", "macro_f1", "roc_auc", "quadratic_kappa"), 1)
    assert score(labels[:2] * 0, np.eye(2), LabelSpace(("cat", "dog")))["factors"] == {}


def test_scores_do_not_depend_on_the_order_of_the_images():
    draws = generator(1, "order")
    labels, order = draws.integers(0, 18, 500), draws.permutation(500)
    probabilities = draws.dirichlet(np.ones(18), 500)
    assert score(labels, probabilities, HOME) == score(labels[order], probabilities[order], HOME)


def test_f34_permuted_labels_score_at_chance():
    draws = generator(7, "permuted")
    labels = draws.integers(0, 18, 9000)
    probabilities = np.full((9000, 18), 0.01)
    probabilities[np.arange(9000), labels] = 0.83
    assert score(labels, probabilities, HOME)["macro_f1"] == 1.0
    permuted = score(draws.permutation(labels), probabilities, HOME)
    assert permuted["macro_f1"] == pytest.approx(1 / 18, abs=0.01)
    assert permuted["accuracy"] == pytest.approx(1 / 18, abs=0.01)
    assert permuted["log_loss"] > math.log(18)
    assert permuted["factors"]["gender"]["accuracy"] == pytest.approx(1 / 2, abs=0.03)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_codes_outside_the_classes_are_an_error_and_not_another_class(wrong):
    with pytest.raises(ValueError, match="outside 0 to 2"):
        confusion(np.array([0, wrong]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="outside 0 to 2"):
        confusion(np.array([0, 1]), np.array([wrong, 1]), 3)


def test_shapes_that_do_not_go_together_are_an_error():
    with pytest.raises(ValueError, match="equal length"):
        confusion(np.array([0, 1]), np.array([0]), 3)
    with pytest.raises(ValueError, match="expected"):
        score(np.array([0, 1]), np.eye(2), HOME)
