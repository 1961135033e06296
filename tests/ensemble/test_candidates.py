"""Voices: models of some factors multiply to one, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import factor_label_space
from foldvote.ensemble.candidates import multiply_factor_models, own_classes, product_name
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

SCHEME = factor_label_space({"mask": ("wear", "not"), "gender": ("male", "female"), "age": ("young", "old", "oldest")})


def spread(factors: list[str], seed: int, images: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of own classes, and of the task's as a member's file gives them."""
    own, code_of = SCHEME.restricted(factors)
    logits = generator(seed, *factors).normal(0, 2, (images, len(own.classes)))
    return softmax(logits), softmax(logits[:, code_of])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_three_models_of_single_factors_multiply(seed: int) -> None:
    parts = {name: spread([name], seed) for name in SCHEME.factors}
    spoken = multiply_factor_models(
        {name: whole for name, (_, whole) in parts.items()}, {name: [name] for name in parts}, SCHEME
    )
    product = spoken.pop("age*gender*mask")
    assert not spoken
    expected = np.einsum("im,ig,ia->imga", *(parts[name][0] for name in SCHEME.factors)).reshape(5, -1)
    np.testing.assert_allclose(product, expected, rtol=1e-9)


def test_models_of_equal_factors_are_averaged_first_and_whole_models_stay() -> None:
    learnt = {"a": ["mask"], "b": ["mask"], "c": ["age", "gender"], "whole": None}
    own = {name: spread(factors or list(SCHEME.factors), seed) for seed, (name, factors) in enumerate(learnt.items())}
    by_model = {name: whole for name, (_, whole) in own.items()}
    spoken = multiply_factor_models(by_model, learnt, SCHEME)
    assert list(spoken) == [product_name(learnt), "whole"] == ["a*b*c", "whole"]
    np.testing.assert_array_equal(spoken["whole"], by_model["whole"])
    masks = own_classes(spoken["a*b*c"], ["mask"], SCHEME)[1]
    np.testing.assert_allclose(masks, (own["a"][0] + own["b"][0]) / 2, rtol=1e-9)
    np.testing.assert_allclose(spoken["a*b*c"].sum(axis=1), 1, rtol=1e-12)


def test_without_models_of_some_factors_nothing_changes() -> None:
    by_model = {"b": spread(list(SCHEME.factors), 1)[1], "a": spread(list(SCHEME.factors), 2)[1]}
    spoken = multiply_factor_models(by_model, {"a": None, "b": None}, SCHEME)
    assert list(spoken) == ["a", "b"]
    assert all(spoken[name] is by_model[name] for name in spoken)


def test_a_factor_without_a_model_is_refused() -> None:
    by_model = {"masks": spread(["mask"], 1)[1]}
    with pytest.raises(UserError, match="models masks learn mask and the classes are made of mask, gender, age"):
        multiply_factor_models(by_model, {"masks": ["mask"]}, SCHEME)
