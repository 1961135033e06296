"""Candidates: factor models multiply to one, nothing else changes; and the draw of images for large fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import factor_label_space
from foldvote.ensemble.candidates import multiply_factor_models, own_classes, product_name, subsample
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

LABEL_SPACE = factor_label_space(
    {"mask": ("wear", "not"), "gender": ("male", "female"), "age": ("young", "old", "oldest")}
)


def probabilities_of(factors: list[str], seed: int, images: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the factors' own classes, and of the task's classes as in a member's file."""
    own, code_of = LABEL_SPACE.restricted(factors)
    logits = generator(seed, *factors).normal(0, 2, (images, len(own.classes)))
    return softmax(logits), softmax(logits[:, code_of])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_three_models_of_one_factor_each_multiply(seed: int) -> None:
    parts = {name: probabilities_of([name], seed) for name in LABEL_SPACE.factors}
    whole_models = multiply_factor_models(
        {name: whole for name, (_, whole) in parts.items()}, {name: [name] for name in parts}, LABEL_SPACE
    )
    product = whole_models.pop("age*gender*mask")
    assert not whole_models
    expected = np.einsum("im,ig,ia->imga", *(parts[name][0] for name in LABEL_SPACE.factors)).reshape(5, -1)
    np.testing.assert_allclose(product, expected, rtol=1e-9)


def test_models_of_equal_factors_are_averaged_first_and_whole_models_stay() -> None:
    learnt = {"a": ["mask"], "b": ["mask"], "c": ["age", "gender"], "whole": None}
    own = {
        name: probabilities_of(factors or list(LABEL_SPACE.factors), seed)
        for seed, (name, factors) in enumerate(learnt.items())
    }
    by_model = {name: whole for name, (_, whole) in own.items()}
    whole_models = multiply_factor_models(by_model, learnt, LABEL_SPACE)
    assert list(whole_models) == [product_name(learnt), "whole"] == ["a*b*c", "whole"]
    np.testing.assert_array_equal(whole_models["whole"], by_model["whole"])
    masks = own_classes(whole_models["a*b*c"], ["mask"], LABEL_SPACE)[1]
    np.testing.assert_allclose(masks, (own["a"][0] + own["b"][0]) / 2, rtol=1e-9)
    np.testing.assert_allclose(whole_models["a*b*c"].sum(axis=1), 1, rtol=1e-12)


def test_without_factor_models_nothing_changes() -> None:
    by_model = {
        "b": probabilities_of(list(LABEL_SPACE.factors), 1)[1],
        "a": probabilities_of(list(LABEL_SPACE.factors), 2)[1],
    }
    whole_models = multiply_factor_models(by_model, {"a": None, "b": None}, LABEL_SPACE)
    assert list(whole_models) == ["a", "b"]
    assert all(whole_models[name] is by_model[name] for name in whole_models)


def test_a_factor_without_a_model_is_refused() -> None:
    by_model = {"masks": probabilities_of(["mask"], 1)[1]}
    with pytest.raises(UserError, match="models masks learn mask and the classes are made of mask, gender, age"):
        multiply_factor_models(by_model, {"masks": ["mask"]}, LABEL_SPACE)


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
